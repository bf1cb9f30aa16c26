//! When the machine's addresses may have changed: the kernel tells.

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket};
use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

/// Links, addresses and IPv4 routes, by which an address is preferred: `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`
/// and `RTMGRP_IPV6_IFADDR` of Linux's `include/uapi/linux/rtnetlink.h`.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100;
/// What comes together is one change: a link that comes up gets its addresses and routes one after the other.
const SETTLE: Duration = Duration::from_millis(20);
/// A message is no longer: the kernel's `NLMSG_GOODSIZE` is a page, 8 KiB at most.
const MESSAGE: usize = 8 << 10;

/// Messages that are taken as one change; the next ones are another.
const AT_ONCE: usize = 1000;

/// The kernel's messages about links and addresses. What they say does not matter: they are a reason to look.
pub(crate) struct Watch(TokioSocket);

impl Watch {
    /// # Errors
    /// If the system has no such socket, or lets nobody have one, as some sandboxes do not.
    pub(crate) fn new() -> io::Result<Watch> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind(&SocketAddr::new(0, GROUPS))?;
        Ok(Watch(socket))
    }

    /// Waits for the next change.
    pub(crate) async fn changed(&self) {
        let mut buffer = Vec::with_capacity(MESSAGE);
        // That more came than the socket holds is an error (ENOBUFS), and a change all the same.
        let _ = self.0.recv(&mut buffer).await;
        tokio::time::sleep(SETTLE).await;
        poll_fn(|cx| {
            for _ in 0..AT_ONCE {
                buffer.clear();
                if self.0.poll_recv(cx, &mut buffer).is_pending() {
                    break;
                }
            }
            Poll::Ready(())
        })
        .await;
    }
}

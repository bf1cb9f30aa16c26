//! The network of the machine, by tokio.

use crate::net::{Datagram, Listener, Net, Udp};
#[cfg(target_os = "linux")]
use crate::watch::Watch;
use bytes::Bytes;
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;
#[cfg(target_os = "linux")]
use std::{cell::OnceCell, rc::Rc};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// What is asked of the kernel for the buffers of a UDP socket, as Tailscale does (`socketBufferSize`, `magicsock.go`); it gives
/// what it may.
const SOCKET_BUFFER: usize = 7 << 20;
/// Connections that may wait to be accepted: Linux's `SOMAXCONN`.
const BACKLOG: i32 = 4096;
/// Longest UDP payload: what GRO gathers is no longer either.
const MAX_PAYLOAD: usize = 65_535;
/// Addresses of documentation (RFC 5737 §3, RFC 3849 §2), which are routed as the internet is. Nothing is sent to them.
const ELSEWHERE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// The network of the machine.
///
/// By default ports are bound on all addresses. A port may be bound elsewhere before, under the number by which the program
/// knows it.
#[derive(Default)]
pub struct TokioNet {
    udp: Vec<(u16, UdpSocket)>,
    tcp: Vec<(u16, TcpListener)>,
    addresses: Option<Vec<IpAddr>>,
    hidden: Vec<String>,
    one_by_one: bool,
    #[cfg(target_os = "linux")]
    watch: OnceCell<Option<Rc<Watch>>>,
}

impl TokioNet {
    /// The network as it is.
    #[must_use]
    pub fn new() -> TokioNet {
        TokioNet::default()
    }

    /// Tells the program these addresses in place of the machine's.
    #[must_use]
    pub fn with_addresses(self, addresses: Vec<IpAddr>) -> TokioNet {
        TokioNet { addresses: Some(addresses), ..self }
    }

    /// Does not tell the program of the addresses of that interface, such as that of its own tunnel.
    #[must_use]
    pub fn without_interface(mut self, name: impl Into<String>) -> TokioNet {
        self.hidden.push(name.into());
        self
    }

    /// Sends datagrams one by one, and leaves it to nobody to cut longer ones (GSO).
    #[must_use]
    pub fn without_offload(self) -> TokioNet {
        TokioNet { one_by_one: true, ..self }
    }

    /// Binds a UDP socket for what the program knows as `port`, and says where: with port 0 the kernel chooses. Without a
    /// `port` the program is to know it by the one that it has.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn bind_udp(&mut self, port: Option<u16>, at: SocketAddr) -> io::Result<SocketAddr> {
        let socket = udp_socket(at)?;
        let at = socket.local_addr()?;
        self.udp.push((port.unwrap_or(at.port()), socket));
        Ok(at)
    }

    /// Listens for what the program knows as `port`, and says where: with port 0 the kernel chooses. Without a `port` the
    /// program is to know it by the one that it has.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn bind_tcp(&mut self, port: Option<u16>, at: SocketAddr) -> io::Result<SocketAddr> {
        let listener = tcp_listener(at)?;
        let at = listener.local_addr()?;
        self.tcp.push((port.unwrap_or(at.port()), listener));
        Ok(at)
    }
}

impl Net for TokioNet {
    type Udp = TokioUdp;
    type Listener = TcpListener;
    type Stream = TcpStream;

    fn now(&self) -> Instant {
        // Not `Instant::now`, so that a runtime whose clock is paused is believed.
        tokio::time::Instant::now().into_std()
    }

    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + 'static {
        tokio::time::sleep_until(at.into())
    }

    async fn udp(&mut self, port: u16) -> io::Result<Vec<TokioUdp>> {
        let mut bound = take(&mut self.udp, port);
        if bound.is_empty() {
            bound = on_all_addresses(port, udp_socket)?;
        }
        let most = if self.one_by_one { 1 } else { usize::MAX };
        bound.into_iter().map(|socket| TokioUdp::new(socket, most)).collect()
    }

    async fn listen(&mut self, port: u16) -> io::Result<Vec<TcpListener>> {
        let bound = take(&mut self.tcp, port);
        if bound.is_empty() { on_all_addresses(port, tcp_listener) } else { Ok(bound) }
    }

    fn connect(&self, to: SocketAddr) -> impl Future<Output = io::Result<TcpStream>> + 'static {
        connect(to)
    }

    fn addresses(&self) -> Vec<IpAddr> {
        match &self.addresses {
            Some(addresses) => addresses.clone(),
            None => addresses(&self.hidden),
        }
    }

    #[cfg(target_os = "linux")]
    fn changed(&self) -> impl Future<Output = ()> + 'static {
        let open = || {
            let failed = |error| tracing::debug!(%error, "the kernel does not tell of changed addresses");
            Watch::new().map_err(failed).ok().map(Rc::new)
        };
        let watch = self.addresses.is_none().then(|| self.watch.get_or_init(open).clone()).flatten();
        async move {
            match watch {
                Some(watch) => watch.changed().await,
                None => std::future::pending().await,
            }
        }
    }
}

async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn take<T>(bound: &mut Vec<(u16, T)>, port: u16) -> Vec<T> {
    bound.extract_if(.., |(for_port, _)| *for_port == port).map(|(_, socket)| socket).collect()
}

/// A socket for each IP version that the machine has.
fn on_all_addresses<T>(port: u16, bind: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<Vec<T>> {
    let v4 = bind((Ipv4Addr::UNSPECIFIED, port).into());
    let v6 = bind((Ipv6Addr::UNSPECIFIED, port).into());
    match (v4, v6) {
        (Ok(v4), Ok(v6)) => Ok(vec![v4, v6]),
        (Ok(one), Err(error)) | (Err(error), Ok(one)) if error.kind() != io::ErrorKind::AddrInUse => {
            Ok(vec![one])
        }
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

fn socket(at: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), kind, Some(protocol))?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn udp_socket(at: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(at, Type::DGRAM, Protocol::UDP)?;
    // The kernel gives less where it must.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.bind(&at.into())?;
    UdpSocket::from_std(socket.into())
}

fn tcp_listener(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(at, Type::STREAM, Protocol::TCP)?;
    // On Windows it means something else: that others may take the port.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The machine's addresses. The one that the route to the internet starts from comes first, as that is the one from which
/// datagrams leave. Addresses of one link only (RFC 4291 §2.5.6, RFC 3927) are left out, and those of the machine
/// itself unless there are no others.
fn addresses(hidden: &[String]) -> Vec<IpAddr> {
    let all = if_addrs::get_if_addrs().unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot read the addresses of this machine");
        Vec::new()
    });
    let shown = all.iter().filter(|interface| !hidden.contains(&interface.name));
    let mut own: Vec<IpAddr> = shown.map(if_addrs::Interface::ip).collect();
    own.retain(|ip| !is_link_local(*ip));
    own.sort_unstable();
    own.dedup();
    if own.iter().any(|ip| !ip.is_loopback()) {
        own.retain(|ip| !ip.is_loopback());
    }
    let preferred = ELSEWHERE.map(leaves_from);
    own.sort_by_key(|ip| preferred.iter().position(|p| p.as_ref() == Some(ip)).unwrap_or(preferred.len()));
    own
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// The address that the machine would send from. Connecting a UDP socket sends nothing.
fn leaves_from(to: IpAddr) -> Option<IpAddr> {
    let to = SocketAddr::new(to, 9);
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP)).ok()?;
    socket.connect(&to.into()).ok()?;
    socket.local_addr().ok()?.as_socket().map(|from| from.ip())
}

/// A UDP socket, with batches by GSO and GRO where the kernel has them.
pub struct TokioUdp {
    socket: UdpSocket,
    state: UdpSocketState,
    /// How many may go out as one, whatever the kernel can.
    most: usize,
    v4: bool,
    buffers: RefCell<Buffers>,
}

struct Buffers {
    receive: Vec<u8>,
    each: usize,
    send: Vec<u8>,
}

impl TokioUdp {
    fn new(socket: UdpSocket, most: usize) -> io::Result<TokioUdp> {
        let state = UdpSocketState::new((&socket).into())?;
        let v4 = socket.local_addr()?.is_ipv4();
        let each = MAX_PAYLOAD;
        let buffers = Buffers { receive: vec![0; each * BATCH_SIZE], each, send: Vec::new() };
        Ok(TokioUdp { socket, state, most, v4, buffers: RefCell::new(buffers) })
    }

    fn receive(&self, into: &mut Vec<Datagram>) -> io::Result<()> {
        let Buffers { receive, each, .. } = &mut *self.buffers.borrow_mut();
        let mut meta = [RecvMeta::default(); BATCH_SIZE];
        let count = {
            let mut chunks = receive.chunks_exact_mut(*each).map(IoSliceMut::new);
            let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
                std::array::from_fn(|_| chunks.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
            self.state.recv((&self.socket).into(), &mut slices, &mut meta)?
        };
        for (meta, data) in meta.iter().zip(receive.chunks_exact(*each)).take(count) {
            let addr = SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port());
            let data = Bytes::copy_from_slice(&data[..meta.len]);
            // Several of one flow may come as one.
            let stride = meta.stride.max(1);
            let parts = (0..data.len()).step_by(stride);
            into.extend(parts.map(|at| Datagram { addr, data: data.slice(at..data.len().min(at + stride)) }));
        }
        Ok(())
    }

    /// Sends the first `count` of the queue, which all have the same length and destination but for the last, which may be
    /// shorter, as one.
    fn send_batch(&self, queue: &VecDeque<Datagram>, count: usize) -> io::Result<()> {
        let Some(first) = queue.front() else { return Ok(()) };
        let send = |contents: &[u8], segment_size| {
            let transmit =
                Transmit { destination: first.addr, ecn: None, contents, segment_size, src_ip: None };
            self.socket.try_io(Interest::WRITABLE, || self.state.try_send((&self.socket).into(), &transmit))
        };
        if count == 1 {
            return send(&first.data, None);
        }
        let buffer = &mut self.buffers.borrow_mut().send;
        buffer.clear();
        queue.iter().take(count).for_each(|datagram| buffer.extend_from_slice(&datagram.data));
        send(buffer, Some(first.data.len()))
    }
}

/// How many from the front of the queue may go out as one.
fn batch(queue: &VecDeque<Datagram>, most: usize) -> usize {
    let Some(first) = queue.front() else { return 0 };
    let (size, mut total, mut count) = (first.data.len(), first.data.len(), 1);
    for datagram in queue.iter().skip(1) {
        let len = datagram.data.len();
        total += len;
        // Longer ones than an MTU go alone: the kernel refuses to cut what is not a packet each.
        if datagram.addr != first.addr || len > size || len == 0 || total > MAX_PAYLOAD - 28 || count >= most
        {
            break;
        }
        count += 1;
        if len < size {
            break;
        }
    }
    count
}

impl Udp for TokioUdp {
    fn carries(&self, to: SocketAddr) -> bool {
        to.is_ipv4() == self.v4
    }

    async fn recv(&self, into: &mut Vec<Datagram>) -> io::Result<()> {
        self.socket.async_io(Interest::READABLE, || self.receive(into)).await
    }

    fn try_send(&self, queue: &mut VecDeque<Datagram>) -> io::Result<()> {
        while !queue.is_empty() {
            let count = batch(queue, self.state.max_gso_segments().min(self.most));
            match self.send_batch(queue, count) {
                Ok(()) => {
                    queue.drain(..count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Perhaps only one of them is too long, or the card cannot cut: one by one tells.
                Err(error) if count > 1 && error.kind() != io::ErrorKind::WouldBlock => {
                    self.send_batch(queue, 1)?;
                    queue.pop_front();
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn writable(&self) -> io::Result<()> {
        self.socket.writable().await
    }

    fn is_too_big(error: &io::Error) -> bool {
        quinn_udp::is_msg_size_err(error)
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, from) = TcpListener::accept(self).await?;
        stream.set_nodelay(true)?;
        Ok((stream, from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(lens: &[(u16, usize)]) -> VecDeque<Datagram> {
        let datagram = |(port, len): &(u16, usize)| Datagram {
            addr: (Ipv4Addr::LOCALHOST, *port).into(),
            data: vec![0; *len].into(),
        };
        lens.iter().map(datagram).collect()
    }

    #[test]
    fn a_batch_is_of_one_destination_and_one_length_with_a_shorter_end() {
        assert_eq!(batch(&queue(&[(1, 100), (1, 100), (1, 60), (1, 60)]), 64), 3);
        assert_eq!(batch(&queue(&[(1, 100), (2, 100)]), 64), 1, "another destination");
        assert_eq!(batch(&queue(&[(1, 60), (1, 100)]), 64), 1, "a longer one");
        assert_eq!(batch(&queue(&[(1, 9), (1, 9), (1, 9)]), 2), 2, "as many as the kernel takes");
        assert_eq!(batch(&queue(&[(1, 9), (1, 0)]), 64), 1, "an empty one would be lost in it");
        assert_eq!(batch(&queue(&[(1, 60_000), (1, 60_000)]), 64), 1, "more than a datagram holds");
    }
}

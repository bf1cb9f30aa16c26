//! The far end of a veth pair, spoken to by a packet socket.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::thread;
use std::time::Duration;

use etherparse::{ArpEthIpv4Packet, ArpOperation, EtherType, Ethernet2Header};
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, sched_getcpu, unshare};
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, bind, socket};
use nix::unistd::gettid;

use crate::Error;
use crate::ends::unless_empty;
use crate::namespace::{feed, no_ipv6};

/// Hardware address of both devices in the box; locally administered (IEEE 802-2014 section 8.4).
const BOX: [u8; 6] = [6, 0, 0, 0, 0, 1];
/// An address of the box that every device of it answers for (`arp_ignore` 0, Documentation/networking/ip-sysctl).
const ASKED: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// Milliseconds between two requests while a device comes up, and how often to try: the kernel's link watch may defer
/// an event for a second (net/core/link_watch.c).
const UP: (u16, u32) = (5, 2000);
/// Milliseconds until a request counts as lost.
const LOST: u16 = 5000;
/// How long what waits on another processor gets: many times what a softirq may take (net/core/dev.c,
/// `netdev_budget_usecs`).
const ELSEWHERE: Duration = Duration::from_millis(20);
/// Of an Ethernet header.
const HEADER: usize = 14;

/// One far end.
#[derive(Debug)]
pub(crate) struct Veth {
    socket: File,
    /// The number of the last ARP request.
    asked: u32,
    /// The number of the last answer.
    answered: u32,
    /// The processor that the last packet was sent on.
    processor: usize,
}

impl Veth {
    /// Behind each device is one neighbour, with a hardware address that is not that of the far end, whose network stack
    /// therefore leaves packets alone; the socket sees them all the same. So nobody is ever asked for by ARP.
    pub(crate) const NEIGHBOURS: &str = "neighbor replace 169.254.0.1 lladdr 02:00:00:00:00:00 nud permanent dev lan\n\
         neighbor replace 169.254.0.1 lladdr 02:00:00:00:00:00 nud permanent dev wan\n";
    /// Whatever the destination, it is behind that neighbour.
    pub(crate) const GATEWAY: &str = " via 169.254.0.1 onlink";

    /// Makes the devices `lan` and `wan` in the namespace of this thread and gives the far ends, which are in a namespace
    /// of their own: in the same one the box would take part in both ends of the cable.
    pub(crate) fn pairs() -> Result<(Veth, Veth), Error> {
        let router = gettid();
        thread::scope(|scope| {
            let made = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).map_err(|error| Error::NoRights(error.into()))?;
                no_ipv6()?;
                let mac = BOX.map(|byte| format!("{byte:02x}")).join(":");
                let mut links = String::new();
                for name in ["lan", "wan"] {
                    links.push_str(&format!(
                        "link add {name} type veth peer name {name} address {mac} netns {router}\n\
                         link set {name} up\n"
                    ));
                }
                feed("ip", &["-batch", "-"], &links).map_err(|error| match error {
                    Error::Command { output, .. } => Error::NoDevices(output),
                    error => error,
                })?;
                let end = |name| Veth::open(name).map_err(|error| Error::NoDevices(error.to_string()));
                Ok((end("lan")?, end("wan")?))
            });
            made.join().unwrap_or_else(|_| Err(Error::NoRights(io::Error::other("the thread panicked"))))
        })
    }

    /// The end called `name` in the namespace of this thread.
    fn open(name: &str) -> io::Result<Veth> {
        // The address family names its devices by number: the list of addresses has one, ready to bind to. Its protocol
        // is 0, with which `bind` keeps that of the socket (net/packet/af_packet.c).
        let link = |interface: nix::ifaddrs::InterfaceAddress| -> Option<LinkAddr> {
            (interface.interface_name == name).then_some(interface.address?.as_link_addr().copied()).flatten()
        };
        let address = getifaddrs()?.find_map(link).ok_or(io::ErrorKind::NotFound)?;
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket: OwnedFd = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
        bind(socket.as_raw_fd(), &address)?;
        Ok(Veth { socket: File::from(socket), asked: 0, answered: 0, processor: 0 })
    }

    /// Waits until packets pass in both directions. A veth device is up some time after it was told to be.
    pub(crate) fn ready(&mut self) -> io::Result<()> {
        let (pause, times) = UP;
        let mut buffer = [0; 256];
        for _ in 0..times {
            self.processor = sched_getcpu()?;
            self.ask()?;
            self.poll(pause)?;
            while self.receive(&mut buffer)?.is_some() {}
            if self.answered() {
                return Ok(());
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "a veth device does not come up"))
    }

    /// Sends a packet of IPv4.
    pub(crate) fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        self.processor = sched_getcpu()?;
        self.frame([2, 0, 0, 0, 0, 0], EtherType::IPV4, packet)
    }

    /// Sends an ARP request with a new number. Packets wait in a queue for each processor (`netif_rx` in
    /// net/core/dev.c), so what was sent before it comes out before the answer. Where the scheduler moved this thread in
    /// between, those are two queues, and only time helps.
    pub(crate) fn ask(&mut self) -> io::Result<()> {
        self.asked = self.asked.wrapping_add(1);
        let [a, b, c, d] = self.asked.to_be_bytes();
        // The answer goes to the hardware address that asks: it carries the number.
        let number = [2, 0, a, b, c, d];
        // Without an address of its own (RFC 5227 section 2.1.1), so that the box learns of no neighbour.
        let request = ArpEthIpv4Packet {
            operation: ArpOperation::REQUEST,
            sender_mac: number,
            sender_ipv4: [0; 4],
            target_mac: [0; 6],
            target_ipv4: ASKED.octets(),
        };
        self.frame(number, EtherType::ARP, &request.to_bytes())?;
        if sched_getcpu()? != self.processor {
            thread::sleep(ELSEWHERE);
        }
        Ok(())
    }

    /// Whether the last request has been answered.
    pub(crate) fn answered(&self) -> bool {
        self.answered == self.asked
    }

    /// Waits for the next frame.
    pub(crate) fn wait(&self) -> io::Result<()> {
        if self.poll(LOST)? {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::TimedOut, "the box does not answer ARP"))
        }
    }

    /// The next packet that came out, if there is one.
    pub(crate) fn receive<'a>(&mut self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        while let Some(length) = unless_empty(self.socket.read(buffer))? {
            let Some((header, _)) =
                buffer.get(..length).and_then(|frame| Ethernet2Header::from_slice(frame).ok())
            else {
                continue;
            };
            match (header.ether_type, header.destination) {
                (EtherType::IPV4, _) => return Ok(buffer.get(HEADER..length)),
                (EtherType::ARP, [_, _, a, b, c, d]) => self.answered = u32::from_be_bytes([a, b, c, d]),
                _ => {}
            }
        }
        Ok(None)
    }

    fn frame(&mut self, source: [u8; 6], ether_type: EtherType, payload: &[u8]) -> io::Result<()> {
        let mut frame = Ethernet2Header { source, destination: BOX, ether_type }.to_bytes().to_vec();
        frame.extend(payload);
        self.socket.write_all(&frame)
    }

    /// Whether there is something to read within so many milliseconds.
    fn poll(&self, within: u16) -> io::Result<bool> {
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut fds, PollTimeout::from(within))? > 0)
    }
}

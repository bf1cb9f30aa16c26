//! The tunnel as a network interface of the machine.

use super::Failure;
use super::peer::Running;
use bytes::Bytes;
use program::userspace::TUNNEL_MTU;
use program::{UserOutput, Users};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use trace::Path;
use tun_rs::{AsyncDevice, DeviceBuilder};

/// Packets that may wait for the device; more are dropped, as a full queue of an interface does. One look at the UDP socket may
/// bring as many as this, before the device gets its turn: `quinn_udp::BATCH_SIZE` times `UDP_MAX_SEGMENTS` of Linux's
/// `include/linux/udp.h`.
const QUEUE: usize = 32 * 64;
/// Packets that are read before the peer gets them, and that are written at once. A segment of 64 KiB that the kernel leaves to
/// us to cut has no more in packets of the tunnel.
const BATCH: usize = 128;
/// Longest IP packet.
const MAX_PACKET: usize = u16::MAX as usize;
/// The network of tunnel addresses, 100.64.0.0/10 (RFC 6598).
const PREFIX: u8 = 10;
/// Of an IPv6 tunnel address only itself is known.
const PREFIX6: u8 = 128;

/// The device's end in the peer.
pub(super) struct TunUsers {
    to_device: mpsc::Sender<Bytes>,
    address: watch::Sender<Option<IpAddr>>,
}

impl Users for TunUsers {
    fn handle_packet(&mut self, _: &Arc<str>, data: &Bytes, _: Path, _: Instant) {
        if self.to_device.try_send(data.clone()).is_err() {
            tracing::debug!("the device does not take packets fast enough");
        }
    }

    fn set_address(&mut self, address: IpAddr, _: Instant) {
        self.address.send_replace(Some(address));
    }

    fn poll_output(&mut self) -> Option<UserOutput> {
        None
    }
}

/// A device that is open, and waits for the peer.
pub(super) struct Tun {
    device: AsyncDevice,
    from_peer: mpsc::Receiver<Bytes>,
    address: watch::Receiver<Option<IpAddr>>,
}

/// Opens a device.
///
/// # Errors
/// If that needs rights that the program does not have: what to do.
///
/// With `offload`, where the system has it, the kernel hands over and takes many packets at once.
pub(super) fn open(name: &str, offload: bool) -> Result<(Tun, TunUsers), Failure> {
    let builder = DeviceBuilder::new().name(name).mtu(TUNNEL_MTU);
    #[cfg(target_os = "linux")]
    let builder = builder.with(|linux| {
        linux.offload(offload);
    });
    #[cfg(not(target_os = "linux"))]
    let _ = offload;
    let device = builder.build_async().map_err(|error| {
        let program = std::env::current_exe().map_or_else(|_| "punchbag".into(), |path| path.display().to_string());
        match error.kind() {
            io::ErrorKind::PermissionDenied => format!(
                "no right to open a TUN device ({error}): run as root, or run once: sudo setcap cap_net_admin=+ep {program}, \
                 or do without it: --userspace, with --socks5, --forward and --expose"
            ),
            io::ErrorKind::NotFound => format!(
                "this system has no TUN devices ({error}): load the module (modprobe tun), or do without: --userspace"
            ),
            _ => format!("cannot open TUN device {name}: {error}; or do without: --userspace"),
        }
    })?;
    let (to_device, from_peer) = mpsc::channel(QUEUE);
    let (told, address) = watch::channel(None);
    tracing::info!(name, "TUN device");
    Ok((Tun { device, from_peer, address }, TunUsers { to_device, address: told }))
}

impl Tun {
    /// Carries packets between device and peer, for ever.
    pub(super) fn spawn(self, tasks: &mut JoinSet<()>, peer: Running) {
        let Tun { device, from_peer, address } = self;
        let device = Arc::new(device);
        tasks.spawn_local(write(Arc::clone(&device), from_peer));
        tasks.spawn_local(configure(Arc::clone(&device), address.clone()));
        tasks.spawn_local(read(device, address, peer));
    }
}

async fn write(device: Arc<AsyncDevice>, mut from_peer: mpsc::Receiver<Bytes>) {
    let (mut out, mut packets) = (Out::default(), Vec::with_capacity(BATCH));
    while from_peer.recv_many(&mut packets, BATCH).await > 0 {
        if let Err(error) = out.send(&device, &packets).await {
            tracing::debug!(%error, "writing to the device");
        }
        packets.clear();
    }
}

/// Gives the device its address, and with it the route to the others.
async fn configure(device: Arc<AsyncDevice>, mut address: watch::Receiver<Option<IpAddr>>) {
    while address.changed().await.is_ok() {
        let Some(ip) = *address.borrow_and_update() else { continue };
        let result = match ip {
            IpAddr::V4(ip) => device.set_network_address(ip, PREFIX, None),
            IpAddr::V6(ip) => device.add_address_v6(ip, PREFIX6),
        };
        match result {
            Ok(()) => tracing::info!(%ip, "address of the device"),
            Err(error) => tracing::error!(%ip, %error, "cannot set the address of the device"),
        }
    }
}

async fn read(device: Arc<AsyncDevice>, address: watch::Receiver<Option<IpAddr>>, peer: Running) {
    let mut from_device = In::default();
    loop {
        let mut packets = Vec::new();
        if let Err(error) = from_device.recv(&device, &mut packets).await {
            tracing::warn!(%error, "reading from the device");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        // The kernel sends of its own accord, too, from link-local addresses: router solicitations, multicast reports.
        let own = *address.borrow();
        packets.retain(|packet| own.is_some() && source(packet) == own);
        if packets.is_empty() {
            continue;
        }
        if peer.tell(|program, now| program.with(now, |_, users| users.send(packets))).await.is_err() {
            return;
        }
    }
}

/// Source of an IP packet (RFC 791 §3.1, RFC 8200 §3).
fn source(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => packet.get(12..)?.first_chunk::<4>().map(|ip| (*ip).into()),
        6 => packet.get(8..)?.first_chunk::<16>().map(|ip| (*ip).into()),
        _ => None,
    }
}

/// Packets on their way into the device, as its `send_multiple` wants them: with room in front for a header of the kernel's, and
/// behind for what it joins to them.
#[cfg(target_os = "linux")]
#[derive(Default)]
struct Out {
    table: tun_rs::GROTable,
    buffers: Vec<Vec<u8>>,
}

#[cfg(target_os = "linux")]
impl Out {
    async fn send(&mut self, device: &AsyncDevice, packets: &[Bytes]) -> io::Result<()> {
        use tun_rs::VIRTIO_NET_HDR_LEN as HEAD;
        if self.buffers.len() < packets.len() {
            self.buffers.resize_with(packets.len(), || Vec::with_capacity(HEAD + MAX_PACKET));
        }
        // An empty one would spoil the batch.
        let mut count = 0;
        for packet in packets.iter().filter(|packet| !packet.is_empty()) {
            let buffer = &mut self.buffers[count];
            buffer.clear();
            buffer.resize(HEAD, 0);
            buffer.extend_from_slice(packet);
            count += 1;
        }
        device.send_multiple(&mut self.table, &mut self.buffers[..count], HEAD).await?;
        Ok(())
    }
}

/// Packets on their way out of the device, as its `recv_multiple` gives them.
#[cfg(target_os = "linux")]
struct In {
    raw: Vec<u8>,
    parts: Vec<Vec<u8>>,
    sizes: Vec<usize>,
}

#[cfg(target_os = "linux")]
impl Default for In {
    fn default() -> In {
        let raw = vec![0; tun_rs::VIRTIO_NET_HDR_LEN + MAX_PACKET];
        In { raw, parts: vec![vec![0; MAX_PACKET]; BATCH], sizes: vec![0; BATCH] }
    }
}

#[cfg(target_os = "linux")]
impl In {
    /// Waits for packets, and takes what more is there.
    async fn recv(&mut self, device: &AsyncDevice, packets: &mut Vec<Bytes>) -> io::Result<()> {
        let In { raw, parts, sizes } = self;
        let mut received = device.recv_multiple(raw, parts, sizes, 0).await;
        loop {
            match received {
                Ok(count) => {
                    let got = parts.iter().zip(&*sizes).take(count);
                    packets.extend(got.map(|(part, size)| Bytes::copy_from_slice(&part[..*size])));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            if packets.len() >= BATCH {
                return Ok(());
            }
            received = device.try_recv_multiple(raw, parts, sizes, 0);
        }
    }
}

/// Packets on their way into the device, one by one.
#[cfg(not(target_os = "linux"))]
#[derive(Default)]
struct Out;

#[cfg(not(target_os = "linux"))]
impl Out {
    async fn send(&mut self, device: &AsyncDevice, packets: &[Bytes]) -> io::Result<()> {
        for packet in packets {
            device.send(packet).await?;
        }
        Ok(())
    }
}

/// Packets on their way out of the device, one by one.
#[cfg(not(target_os = "linux"))]
struct In(Vec<u8>);

#[cfg(not(target_os = "linux"))]
impl Default for In {
    fn default() -> In {
        In(vec![0; MAX_PACKET])
    }
}

#[cfg(not(target_os = "linux"))]
impl In {
    /// Waits for packets, and takes what more is there.
    async fn recv(&mut self, device: &AsyncDevice, packets: &mut Vec<Bytes>) -> io::Result<()> {
        let mut received = device.recv(&mut self.0).await;
        loop {
            match received {
                Ok(len) => packets.push(Bytes::copy_from_slice(&self.0[..len])),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            if packets.len() >= BATCH {
                return Ok(());
            }
            received = device.try_recv(&mut self.0);
        }
    }
}

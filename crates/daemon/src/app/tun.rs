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

/// Packets that may wait for the device; more are dropped, as a full queue of an interface does (Linux's `txqueuelen` of TUN).
const QUEUE: usize = 500;
/// Packets that are read before the peer gets them.
const BATCH: usize = 64;
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
pub(super) fn open(name: &str) -> Result<(Tun, TunUsers), Failure> {
    let device = DeviceBuilder::new().name(name).mtu(TUNNEL_MTU).build_async().map_err(|error| {
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
    while let Some(packet) = from_peer.recv().await {
        if let Err(error) = device.send(&packet).await {
            tracing::debug!(%error, "writing to the device");
        }
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
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let mut packets = Vec::new();
        let mut received = device.recv(&mut buffer).await;
        loop {
            match received {
                Ok(len) => packets.push(Bytes::copy_from_slice(&buffer[..len])),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    tracing::warn!(%error, "reading from the device");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    break;
                }
            }
            if packets.len() >= BATCH {
                break;
            }
            received = device.try_recv(&mut buffer);
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

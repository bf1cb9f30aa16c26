//! Our relay, as the daemon runs it, on a thread of its own and plain TCP: one client sends, the other receives.

use bytes::BytesMut;
use daemon::{Limits, Options, TokioNet, drive};
use derp::{Client, ClientConfig, ClientEvent, PrivateKey, PublicKey, server};
use program::RelayProgram;
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Lengths of packets: a small one, and what a link of 1280 bytes leaves of a tunnel's.
pub(crate) const SIZES: [usize; 2] = [100, 1200];
/// Packets written at once.
pub(crate) const BATCH: u64 = 16;
/// Packets under way at most: fewer than any queue on the way holds.
pub(crate) const WINDOW: u64 = 32;
/// After this much silence what is under way counts as lost.
pub(crate) const PATIENCE: Duration = Duration::from_millis(500);

/// A relay on a thread.
pub(crate) struct Relay {
    pub(crate) at: SocketAddr,
    pub(crate) key: PublicKey,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    pub(crate) fn start() -> Relay {
        let key = PrivateKey::from_bytes([7; 32]);
        let public = key.public();
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async move {
                let mut net = TokioNet::new();
                let any = || SocketAddr::from(([127, 0, 0, 1], 0));
                tell.send(net.bind_tcp(Some(80), any()).unwrap()).unwrap();
                net.bind_udp(Some(3478), any()).unwrap();
                let config =
                    server::ServerConfig { max_per_source: usize::MAX, ..server::ServerConfig::default() };
                let server = server::Server::new(config, key, ChaCha12Rng::seed_from_u64(1), Instant::now());
                let relay = RelayProgram::new("relay".into(), server).with_ports(vec![80], 3478);
                let limits = Limits { grace: Duration::ZERO, ..Limits::default() };
                let stopped = async {
                    let _ = stopped.await;
                };
                drive(relay, net, Options { limits, ..Options::default() }, stopped).await.unwrap();
            });
        });
        let at = told.recv().unwrap();
        Relay { at, key: public, stop: Some(stop), thread: Some(thread) }
    }

    /// A client that has finished its handshake.
    pub(crate) fn client(&self, number: u32) -> (TcpStream, PublicKey) {
        let mut private_key = [3; 32];
        private_key[..4].copy_from_slice(&number.to_be_bytes());
        let config = ClientConfig {
            server_key: Some(self.key),
            fast_start: true,
            ..ClientConfig::new(PrivateKey::from_bytes(private_key), "relay")
        };
        let now = Instant::now();
        let mut client = Client::new(config, ChaCha12Rng::seed_from_u64(number.into()), now);
        let mut stream = TcpStream::connect(self.at).unwrap();
        stream.set_nodelay(true).unwrap();
        client.connected(now);
        let mut buffer = [0; 4096];
        loop {
            while let Some(data) = client.poll_transmit(1 << 16) {
                stream.write_all(&data).unwrap();
            }
            if matches!(client.poll_event(), Some(ClientEvent::Ready { .. })) {
                return (stream, client.public_key());
            }
            let read = stream.read(&mut buffer).unwrap();
            client.handle_stream(&buffer[..read], now).unwrap();
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Two clients of one relay.
pub(crate) struct Pair {
    sender: TcpStream,
    receiver: TcpStream,
    /// Frames, sixteen of them.
    batch: Vec<u8>,
    /// Length of a frame as it arrives.
    arrives: usize,
    _relay: Relay,
}

impl Pair {
    pub(crate) fn new(bytes: usize) -> Pair {
        let relay = Relay::start();
        let ((sender, _), (receiver, key)) = (relay.client(1), relay.client(2));
        receiver.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut frame = BytesMut::new();
        derp::frame::Frame::SendPacket { dst: key, packet: &vec![5; bytes] }.encode(&mut frame).unwrap();
        // The sender's key in place of the receiver's.
        Pair { sender, receiver, arrives: frame.len(), batch: frame.repeat(BATCH as usize), _relay: relay }
    }

    pub(crate) fn carry(&mut self, packets: u64) -> Duration {
        let start = Instant::now();
        let Pair { sender, receiver, batch, arrives, .. } = self;
        let one = batch.len() / BATCH as usize;
        let (mut sent, mut received, mut buffer) = (0, 0, vec![0; 1 << 16]);
        while received < packets * *arrives as u64 {
            while sent < packets && sent - received / *arrives as u64 <= WINDOW - BATCH {
                let count = BATCH.min(packets - sent);
                sender.write_all(&batch[..one * count as usize]).unwrap();
                sent += count;
            }
            let read = receiver.read(&mut buffer).expect("a relay that loses nothing within its queues");
            assert!(read > 0, "the relay has closed the connection");
            received += read as u64;
        }
        start.elapsed()
    }
}

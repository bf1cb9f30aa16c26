//! coturn as a child process, and the little of TURN (RFC 8656) that a client needs to send through it: the same packets
//! from one client, by a channel, to a peer's UDP socket.

use crate::relay::{BATCH, PATIENCE, WINDOW};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Magic cookie of STUN (RFC 8489 §5).
const COOKIE: u32 = 0x2112_A442;
/// Methods (RFC 8656 §17).
const ALLOCATE: u16 = 3;
const CREATE_PERMISSION: u16 = 8;
const CHANNEL_BIND: u16 = 9;
/// Attributes (RFC 8656 §18).
const CHANNEL_NUMBER: u16 = 0x0c;
const XOR_PEER_ADDRESS: u16 = 0x12;
const REQUESTED_TRANSPORT: u16 = 0x19;
/// The first channel (RFC 8656 §12).
const CHANNEL: u16 = 0x4000;

/// A running coturn. Ends with this.
pub(crate) struct Server {
    pub(crate) at: SocketAddr,
    child: Child,
    folder: PathBuf,
}

impl Server {
    /// On loopback, without users. `None` if it is not installed.
    pub(crate) fn start() -> Option<Server> {
        let folder = std::env::temp_dir().join(format!("punchbag-coturn-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let at = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = folder.join("turnserver.conf");
        let file = |name: &str| folder.join(name).display().to_string();
        let lines = [
            "listening-ip=127.0.0.1".to_owned(),
            "relay-ip=127.0.0.1".to_owned(),
            format!("listening-port={}", at.port()),
            "allow-loopback-peers".to_owned(),
            "no-auth".to_owned(),
            "no-tls".to_owned(),
            "no-dtls".to_owned(),
            "no-cli".to_owned(),
            "realm=bench".to_owned(),
            format!("userdb={}", file("users")),
            format!("pidfile={}", file("pid")),
            format!("log-file={}", file("log")),
            "simple-log".to_owned(),
        ];
        std::fs::write(&config, lines.join("\n")).unwrap();
        let child = Command::new("turnserver")
            .arg("-c")
            .arg(&config)
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match child {
            Ok(child) => child,
            Err(error) => {
                println!("NOT MEASURED: coturn ({error}); on Debian: apt-get install coturn");
                let _ = std::fs::remove_dir_all(&folder);
                return None;
            }
        };
        let server = Server { at, child, folder };
        for _ in 0..100 {
            if TcpStream::connect(at).is_ok() {
                return Some(server);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        println!("NOT MEASURED: coturn did not listen on {at} within ten seconds");
        None
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A way to the server.
pub(crate) enum Way {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = [kind.to_be_bytes(), (value.len() as u16).to_be_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes
}

/// An XOR-PEER-ADDRESS (RFC 8489 §14.2).
fn peer_address(peer: SocketAddrV4) -> Vec<u8> {
    let port = peer.port() ^ (COOKIE >> 16) as u16;
    let ip = u32::from(*peer.ip()) ^ COOKIE;
    let value = [&[0, 1], &port.to_be_bytes()[..], &ip.to_be_bytes()].concat();
    attribute(XOR_PEER_ADDRESS, &value)
}

impl Way {
    pub(crate) fn new(server: &Server, tcp: bool) -> Way {
        if tcp {
            let stream = TcpStream::connect(server.at).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            return Way::Tcp(stream);
        }
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect(server.at).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        Way::Udp(socket)
    }

    /// Sends a request and wants its success response.
    fn ask(&mut self, method: u16, attributes: &[u8]) {
        let mut request = [method.to_be_bytes(), (attributes.len() as u16).to_be_bytes()].concat();
        request.extend_from_slice(&COOKIE.to_be_bytes());
        request.extend_from_slice(&[method as u8; 12]);
        request.extend_from_slice(attributes);
        let mut answer = [0; 1024];
        let read = match self {
            Way::Udp(socket) => {
                socket.send(&request).unwrap();
                socket.recv(&mut answer).expect("an answer of coturn")
            }
            Way::Tcp(stream) => {
                stream.write_all(&request).unwrap();
                stream.read(&mut answer).expect("an answer of coturn")
            }
        };
        // The class of a success response is 0b10 (RFC 8489 §5).
        assert!(read >= 20 && answer[..2] == (method | 0x0100).to_be_bytes(), "{:02x?}", &answer[..read]);
    }

    /// An allocation of a UDP port.
    pub(crate) fn allocate(&mut self) {
        self.ask(ALLOCATE, &attribute(REQUESTED_TRANSPORT, &[17, 0, 0, 0]));
    }
}

/// A client with an allocation and a peer.
pub(crate) struct Pair {
    way: Way,
    peer: UdpSocket,
    bytes: usize,
    /// A packet on the channel, sixteen times.
    batch: Vec<u8>,
    lost: u64,
}

impl Pair {
    pub(crate) fn new(server: &Server, tcp: bool, bytes: usize) -> Pair {
        // Over TCP what is sent on a channel fills words of four bytes (RFC 8656 §12.5).
        assert!(bytes.is_multiple_of(4));
        let peer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        let SocketAddr::V4(at) = peer.local_addr().unwrap() else { panic!("IPv4") };
        let mut way = Way::new(server, tcp);
        way.allocate();
        way.ask(CREATE_PERMISSION, &peer_address(at));
        let number = [CHANNEL.to_be_bytes(), [0, 0]].concat();
        way.ask(CHANNEL_BIND, &[attribute(CHANNEL_NUMBER, &number), peer_address(at)].concat());
        let mut data = [CHANNEL.to_be_bytes(), (bytes as u16).to_be_bytes()].concat();
        data.resize(4 + bytes, 5);
        Pair { way, peer, bytes, batch: data.repeat(BATCH as usize), lost: 0 }
    }

    fn send(&mut self, count: u64) {
        let one = self.batch.len() / BATCH as usize;
        match &mut self.way {
            Way::Udp(socket) => {
                for _ in 0..count {
                    socket.send(&self.batch[..one]).unwrap();
                }
            }
            Way::Tcp(stream) => stream.write_all(&self.batch[..one * count as usize]).unwrap(),
        }
    }

    pub(crate) fn carry(&mut self, packets: u64) -> Duration {
        let start = Instant::now();
        let (mut sent, mut received, mut buffer) = (0, 0, vec![0; 2048]);
        while received < packets {
            while sent < packets && sent - received <= WINDOW - BATCH {
                let count = BATCH.min(packets - sent);
                self.send(count);
                sent += count;
            }
            match self.peer.recv(&mut buffer) {
                Ok(read) => {
                    assert_eq!(read, self.bytes);
                    received += 1;
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    self.lost += sent - received;
                    received = sent;
                }
                Err(error) => panic!("{error}"),
            }
        }
        start.elapsed()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if self.lost > 0 {
            println!("coturn lost {} packets of {} bytes", self.lost, self.bytes);
        }
    }
}

//! A program that knows nothing of Punchbag, behind two simulated NATs.
//!
//! `program` below is plain tokio: it learns its address by STUN, tells it to the other side at a meeting point, and echoes
//! what it is sent. All that differs from what runs on a real machine is the line that says whose `UdpSocket` it uses.
//!
//! ```sh
//! cargo run -p punchbag --example echo_behind_nats
//! ```

use daemon::{Options as ShellOptions, drive};
use punchbag::host::StunProgram;
use punchbag::scenario;
use punchbag::topology::Topology;
use punchbag::world::turmoil::{Bench, TICK};
use punchbag::world::{Options, Seed};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// The program. On a real machine: `use tokio::net::UdpSocket`.
mod program {
    use punchbag::world::turmoil::UdpSocket;
    use std::io;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Duration;
    use tokio::time::timeout;

    const PATIENCE: Duration = Duration::from_millis(200);
    /// RFC 8489 §5.
    const MAGIC: u32 = 0x2112_a442;

    /// Asks a STUN server where we are seen (RFC 8489 §14.2).
    pub(super) async fn where_am_i(socket: &UdpSocket, server: SocketAddr) -> io::Result<SocketAddr> {
        let mut request = vec![0, 1, 0, 0];
        request.extend(MAGIC.to_be_bytes());
        request.extend(*b"example12345");
        let mut buffer = [0; 512];
        loop {
            socket.send_to(&request, server).await?;
            let Ok(answer) = timeout(PATIENCE, socket.recv_from(&mut buffer)).await else { continue };
            let (len, _) = answer?;
            let mut attributes = buffer.get(20..len).unwrap_or_default();
            while let [kind_high, kind_low, len_high, len_low, rest @ ..] = attributes {
                let length = usize::from(u16::from_be_bytes([*len_high, *len_low]));
                if let ([0x00, 0x20], [_, _, p, q, a, b, c, d, ..]) = ([*kind_high, *kind_low], rest) {
                    let port = u16::from_be_bytes([*p, *q]) ^ (MAGIC >> 16) as u16;
                    let ip = u32::from_be_bytes([*a, *b, *c, *d]) ^ MAGIC;
                    return Ok((Ipv4Addr::from(ip), port).into());
                }
                attributes = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }

    /// Tells everybody who comes who came before.
    pub(super) async fn meeting_point(socket: UdpSocket) -> io::Result<()> {
        let mut known: Vec<String> = Vec::new();
        let mut buffer = [0; 512];
        loop {
            let (len, from) = socket.recv_from(&mut buffer).await?;
            let told = String::from_utf8_lossy(&buffer[..len]).into_owned();
            if let Some(other) = known.iter().find(|other| **other != told) {
                socket.send_to(format!("meet {other}").as_bytes(), from).await?;
            }
            if !known.contains(&told) {
                known.push(told);
            }
        }
    }

    /// Finds the other side and says hello until it is echoed; echoes whatever it says. Returns where the echo came from.
    pub(super) async fn talk(
        socket: &UdpSocket,
        stun: SocketAddr,
        meeting: SocketAddr,
    ) -> io::Result<(SocketAddr, SocketAddr)> {
        let own = where_am_i(socket, stun).await?;
        let mut other = None;
        let mut buffer = [0; 512];
        loop {
            match other {
                None => socket.send_to(own.to_string().as_bytes(), meeting).await?,
                Some(other) => socket.send_to(b"hello", other).await?,
            };
            let Ok(received) = timeout(PATIENCE, socket.recv_from(&mut buffer)).await else { continue };
            let (len, from) = received?;
            match &buffer[..len] {
                b"hello" => _ = socket.send_to(b"echo hello", from).await?,
                b"echo hello" => return Ok((own, from)),
                told => {
                    let address = std::str::from_utf8(told).ok().and_then(|told| told.strip_prefix("meet "));
                    other = address.and_then(|address| address.parse().ok()).or(other);
                }
            }
        }
    }

    /// Echoes whatever comes.
    pub(super) async fn echo(socket: &UdpSocket) -> io::Result<()> {
        let mut buffer = [0; 512];
        loop {
            let (len, from) = socket.recv_from(&mut buffer).await?;
            if buffer[..len] == *b"hello" {
                socket.send_to(b"echo hello", from).await?;
            }
        }
    }
}

const NETWORK: &str = r#"
title = "Two homes, a STUN server and a meeting point"
router.home-a = { region = "eu-west", nat = "port-restricted-cone", lan = "192.168.1.0/24" }
router.home-b = { region = "us-east", nat = "port-restricted-cone", lan = "192.168.1.0/24" }
host.takkie = { behind = "home-a" }
host.flappie = { behind = "home-b" }
host.stun = { region = "eu-west" }
host.meeting = { region = "us-east" }
"#;

/// Puts them there; what each of the two sides found, in words.
pub(crate) fn meet() -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let scenario = scenario::parse("echo", "echo.toml", NETWORK)?;
    let topology = Topology::new(&scenario)?;
    let at = |name: &str, port| {
        let node = topology.find(name).map(|node| topology.node(node).address);
        node.map(|ip| SocketAddr::new(ip, port)).ok_or(format!("no {name}"))
    };
    let (stun, meeting) = (at("stun", punchbag::host::STUN_PORT)?, at("meeting", 7000)?);

    let mut bench = Bench::bare(&scenario, &topology, Seed(1), Options::default(), TICK)?;
    bench.run_on("stun", |net| async {
        // A program of ours, in the shell that real machines run it in.
        let _ = drive(StunProgram::new(), net, ShellOptions::default(), std::future::pending()).await;
    })?;
    bench.run_on("meeting", |net| async move {
        if let Ok(socket) = net.bind(7000) {
            let _ = program::meeting_point(socket).await;
        }
    })?;
    let found = Rc::new(RefCell::new(Vec::new()));
    for name in ["takkie", "flappie"] {
        let found = Rc::clone(&found);
        bench.run_on(name, move |net| {
            let found = Rc::clone(&found);
            async move {
                let Ok(socket) = net.bind(0) else { return };
                if let Ok((own, from)) = program::talk(&socket, stun, meeting).await {
                    found.borrow_mut().push(format!("{name}, seen as {own}, has an echo from {from}"));
                }
                let _ = program::echo(&socket).await;
            }
        })?;
    }
    bench.run_until(Duration::from_secs(5))?;
    drop(bench);
    Ok(found.take())
}

#[allow(dead_code, reason = "a test runs it by the function above")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let found = meet()?;
    for line in &found {
        #[expect(clippy::print_stdout, reason = "an example for people")]
        {
            println!("{line}");
        }
    }
    if found.len() == 2 { Ok(()) } else { Err("they did not find each other".into()) }
}

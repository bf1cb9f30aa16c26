//! Peers with TUN devices behind real routers: Linux network namespaces, which the test makes and removes.

use super::{Folder, PATIENCE, Place, Running, wait_until};
use daemon::{Limits, Options, TokioNet, drive};
use program::{Input, Output, Program};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};

/// What a router lets out.
#[derive(Clone, Copy)]
enum Lets {
    Everything,
    /// TCP 443 alone.
    WebOnly,
}

/// Five namespaces: two machines behind a masquerading router each, and one with the servers; the routers and the servers share
/// a network that plays the internet.
struct Net {
    prefix: String,
    made: Vec<String>,
    folder: Folder,
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in &self.made {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn sh(line: &str) {
    let output = Command::new("sh").args(["-ec", line]).output().expect("sh");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Whether this machine lets us; says so if not.
fn able() -> bool {
    // Two tests that tried at once would be in each other's way.
    static ABLE: OnceLock<bool> = OnceLock::new();
    let able = *ABLE.get_or_init(|| {
        let works = |line: &str| {
            let status = Command::new("sh").args(["-c", line]).stderr(Stdio::null()).status();
            status.is_ok_and(|status| status.success())
        };
        let probe = format!("pb{}-probe", std::process::id());
        Path::new("/dev/net/tun").exists()
            && works(&format!(
                "nft --version >/dev/null && ip netns add {probe} && ip netns exec {probe} ip tuntap add dev t0 mode tun; \
                 r=$?; ip netns del {probe}; exit $r"
            ))
    });
    if !able {
        let mut err = std::io::stderr();
        let _ = writeln!(err, "SKIPPED: needs root, ip, nft and /dev/net/tun to make network namespaces");
    }
    able
}

impl Place {
    /// A part of this test, as a program on one of the machines.
    fn test(&self, name: &str) -> Command {
        let program = std::env::current_exe().expect("this test");
        let program = program.to_str().expect("a path in UTF-8");
        self.command(program, &["--exact", name, "--ignored", "--nocapture"])
    }
}

impl Net {
    fn new(name: &str, lets: [Lets; 2]) -> Net {
        let prefix = format!("pb{}{name}", std::process::id() % 100_000);
        let mut net = Net { prefix, made: Vec::new(), folder: Folder::new(name) };
        for part in ["net", "srv", "ra", "rb", "a", "b"] {
            let full = net.full(part);
            sh(&format!("ip netns add {full}; ip -n {full} link set lo up"));
            net.made.push(full);
        }
        sh(&format!("ip -n {} link add br0 type bridge; ip -n {0} link set br0 up", net.full("net")));
        for (i, part, addresses) in [
            (0, "srv", &["198.51.100.10/24", "198.51.100.11/24"][..]),
            (1, "ra", &["198.51.100.1/24"]),
            (2, "rb", &["198.51.100.2/24"]),
        ] {
            let (inet, part) = (net.full("net"), net.full(part));
            sh(&format!(
                "ip -n {inet} link add p{i} type veth peer name wan netns {part}; \
                 ip -n {inet} link set p{i} master br0 up; ip -n {part} link set wan up"
            ));
            for address in addresses {
                sh(&format!("ip -n {part} addr add {address} dev wan"));
            }
        }
        for (i, (router, machine)) in [("ra", "a"), ("rb", "b")].into_iter().enumerate() {
            net.router(router, machine, i + 1, lets[i]);
        }
        net
    }

    /// A router with its machine, on 192.168.`lan`.0/24.
    fn router(&self, router: &str, machine: &str, lan: usize, lets: Lets) {
        let (router, machine) = (self.full(router), self.full(machine));
        sh(&format!(
            "ip -n {router} link add lan type veth peer name eth0 netns {machine}; \
             ip -n {router} link set lan up; ip -n {machine} link set eth0 up; \
             ip -n {router} addr add 192.168.{lan}.1/24 dev lan; \
             ip -n {machine} addr add 192.168.{lan}.2/24 dev eth0; \
             ip -n {machine} route add default via 192.168.{lan}.1; \
             ip netns exec {router} sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'"
        ));
        let out = match lets {
            Lets::Everything => "iifname lan accept",
            Lets::WebOnly => "iifname lan tcp dport 443 accept",
        };
        // As every router does, it drops what comes from outside for itself. Let in, the first packet of the other peer would take
        // the tuple that this one's answer needs, and the kernel would give that another port.
        let rules = format!(
            "table ip box {{
               chain out {{ type nat hook postrouting priority srcnat; oifname wan masquerade; }}
               chain own {{ type filter hook input priority filter; iifname wan ct state new drop; }}
               chain through {{ type filter hook forward priority filter; policy drop;
                 ct state established,related accept; {out}; }}
             }}"
        );
        sh(&format!("ip netns exec {router} nft '{rules}'"));
    }

    fn full(&self, part: &str) -> String {
        format!("{}-{part}", self.prefix)
    }

    fn place(&self, part: &str, name: &str) -> Place {
        let prefix = ["ip", "netns", "exec", &self.full(part)].map(str::to_owned).to_vec();
        Place { prefix, state: self.folder.0.join(name) }
    }
}

/// A network with its servers and peers, registered and known to each other.
struct Mesh {
    a: Place,
    b: Place,
    relay_at: Place,
    relay: Option<Running>,
    _others: Vec<Running>,
    _net: Net,
}

impl Mesh {
    fn start(name: &str, lets: [Lets; 2]) -> Mesh {
        Mesh::start_with(name, lets, &[])
    }

    /// `flags`: for both peers.
    fn start_with(name: &str, lets: [Lets; 2], flags: &[&str]) -> Mesh {
        let net = Net::new(name, lets);
        let relay_at = net.place("srv", "relay");
        let relay = Mesh::relay(&relay_at);
        let coord_at = net.place("srv", "coord");
        let spec = format!("nl={}@198.51.100.10:443/3478", relay_at.print(&["relay", "--print-key"]));
        let coord = coord_at.start(&["coord", "--listen", "198.51.100.11:443", "--relay", &spec]);
        coord.address("listening");
        let server = format!("{}@198.51.100.11:443", coord_at.print(&["coord", "--print-key"]));
        let (a, b) = (net.place("a", "takkie"), net.place("b", "flappie"));
        let peers = [(&a, "takkie"), (&b, "flappie")].map(|(place, name)| {
            let peer = place.start(&[&["peer", name, "--coord", &server], flags].concat());
            peer.says("address of the device", "ip");
            peer
        });
        wait_until("they know each other", || {
            a.status()["peers"].as_array().is_some_and(|peers| !peers.is_empty())
        });
        let _others = [coord].into_iter().chain(peers).collect();
        Mesh { a, b, relay_at, relay: Some(relay), _others, _net: net }
    }

    fn relay(at: &Place) -> Running {
        let relay = at.start(&["relay", "--listen", "198.51.100.10:443", "--stun", "198.51.100.10:3478"]);
        relay.address("STUN");
        relay
    }

    fn address(place: &Place) -> String {
        place.status()["tunnel"].as_str().expect("an address").to_owned()
    }

    /// Begins to send from one machine to the other by their tunnel addresses, with TCP of the kernel.
    fn stream(&self, bytes: u64) -> Stream {
        self.stream_of("serve", bytes)
    }

    /// The same as fast as it goes, and nobody looks at the bytes.
    fn pour(&self, bytes: u64) {
        self.stream_of("pour", bytes).end();
    }

    fn stream_of(&self, server: &str, bytes: u64) -> Stream {
        let from = self.b.test(HELPER).env(TASK, server).stdout(Stdio::null()).spawn().expect("a server");
        let what = format!("{} {bytes} {server}", Self::address(&self.b));
        let mut to = self.a.test(HELPER).env(TASK, &what).stdout(Stdio::piped()).spawn().expect("a client");
        let said = BufReader::new(to.stdout.take().expect("what it says"));
        let got = Arc::new(AtomicU64::new(0));
        let theirs = Arc::clone(&got);
        // It ends with the process.
        std::thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                // The test's own lines are there, too.
                if let Some(total) = line.strip_prefix(GOT).and_then(|total| total.parse().ok()) {
                    theirs.store(total, Ordering::Relaxed);
                }
            }
        });
        Stream { from, to, got }
    }

    /// Sends a megabyte.
    fn transfer(&self) {
        self.stream(1 << 20).end();
    }

    /// The kernel's own ping through the tunnel.
    fn kernel_ping(&self) {
        let to = Self::address(&self.b);
        if Command::new("ping").arg("-V").stdout(Stdio::null()).status().is_err() {
            let mut err = std::io::stderr();
            let _ = writeln!(err, "SKIPPED: needs ping (iputils-ping), to send the kernel's own echo");
            return;
        }
        let output = self.a.command("ping", &["-c", "3", "-i", "0.2", "-W", "5", &to]).output();
        let output = output.expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains(" 0% packet loss"), "{said}");
    }
}

/// A TCP connection between the machines, that is under way.
struct Stream {
    from: Child,
    to: Child,
    got: Arc<AtomicU64>,
}

impl Stream {
    /// Bytes that have arrived, all of them as they were sent.
    fn got(&self) -> u64 {
        self.got.load(Ordering::Relaxed)
    }

    /// Waits for its end, at which everything must have arrived.
    fn end(mut self) {
        let status = self.to.wait().expect("a child");
        assert!(status.success(), "after {} bytes: {status}", self.got());
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        for child in [&mut self.from, &mut self.to] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

const HELPER: &str = "namespaces::helper";
/// What the helper is to do stands in this variable.
const TASK: &str = "PUNCHBAG_HELPER";
const PORT: u16 = 5001;
/// Bytes that are sent, and checked, at once.
const CHUNK: usize = 16 << 10;
/// Before the next of them: a stream is to last, not to be fast.
const PAUSE: Duration = Duration::from_millis(2);
/// What precedes a number of bytes.
const GOT: &str = "got ";

/// What is sent at a place of the stream: its number, so that nothing can be missing, twice or elsewhere.
fn chunk(at: u64) -> Vec<u8> {
    (at..at + CHUNK as u64).step_by(8).flat_map(u64::to_be_bytes).collect()
}

/// Not a test of its own: an end of a [`Stream`], in another namespace.
#[test]
#[ignore = "a part of the tests of namespaces, which start it"]
fn helper() {
    let what = std::env::var(TASK).expect("started by a test");
    if what == "serve" || what == "pour" {
        let listener = TcpListener::bind(("0.0.0.0", PORT)).expect("a port");
        let (mut stream, _) = listener.accept().expect("a client");
        if what == "pour" {
            while stream.write_all(&[0; 4 * CHUNK]).is_ok() {}
            return;
        }
        for at in (0..).step_by(CHUNK) {
            if stream.write_all(&chunk(at)).is_err() {
                return; // it has enough
            }
            std::thread::sleep(PAUSE);
        }
        return;
    }
    let mut words = what.split(' ');
    let to = words.next().expect("an address");
    let bytes: u64 = words.next().and_then(|bytes| bytes.parse().ok()).expect("how much");
    let by = Instant::now() + PATIENCE;
    let mut stream = loop {
        // The server may not have started yet.
        match TcpStream::connect((to, PORT)) {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < by, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    if words.next() == Some("pour") {
        let got = std::io::copy(&mut stream.take(bytes), &mut std::io::sink()).expect("received");
        assert_eq!(got, bytes);
        return;
    }
    let mut got = [0; CHUNK];
    for at in (0..bytes).step_by(CHUNK) {
        stream.read_exact(&mut got).expect("received");
        assert!(got[..] == chunk(at), "other bytes after {at}");
        let mut out = std::io::stdout();
        writeln!(out, "{GOT}{}", at + CHUNK as u64).and_then(|()| out.flush()).expect("told");
    }
}

/// Says which addresses it is told of, one line each time.
struct Teller;

impl Program for Teller {
    fn udp_ports(&self) -> Vec<u16> {
        Vec::new()
    }

    fn handle(&mut self, input: Input<'_>, _: Instant) {
        if let Input::Addresses(addresses) = input {
            let mut out = std::io::stdout();
            writeln!(out, "addresses {addresses:?}").and_then(|()| out.flush()).expect("told");
        }
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        None
    }

    fn poll_output(&mut self) -> Option<Output> {
        None
    }
}

/// Not a test of its own: a program that is driven on a machine whose addresses change, and that nobody looks up by himself.
#[test]
#[ignore = "a part of the tests of namespaces, which start it"]
fn teller() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let limits = Limits { look: Duration::from_secs(3600), ..Limits::default() };
    let options = Options { limits, ..Options::default() };
    let driven = drive(Teller, TokioNet::new(), options, std::future::pending());
    assert!(runtime.block_on(driven).is_ok());
}

#[test]
fn an_address_that_comes_or_goes_is_heard_of_without_looking() {
    if !able() {
        return;
    }
    let net = Net::new("w", [Lets::Everything; 2]);
    let mut command = net.place("a", "a").test("namespaces::teller");
    let mut teller = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let (sender, told) = mpsc::channel();
    let lines = BufReader::new(teller.stdout.take().expect("what it says")).lines();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok).filter(|line| line.starts_with("addresses ")) {
            let _ = sender.send(line);
        }
    });
    let hears = |has: bool| {
        let by = Instant::now() + PATIENCE;
        loop {
            let line = told.recv_timeout(by.saturating_duration_since(Instant::now())).expect("it is told");
            if line.contains("192.168.1.77") == has {
                return;
            }
        }
    };
    hears(false);
    for (what, has) in [("add", true), ("del", false)] {
        sh(&format!("ip -n {} addr {what} 192.168.1.77/24 dev eth0", net.full("a")));
        hears(has);
    }
    let _ = teller.kill();
    let _ = teller.wait();
}

#[test]
fn two_peers_behind_masquerading_routers_reach_each_other_directly() {
    if !able() {
        return;
    }
    let mesh = Mesh::start("d", [Lets::Everything, Lets::Everything]);
    let pong = mesh.a.print(&["ping", "flappie"]);
    assert!(pong.lines().last().is_some_and(|line| line.contains("via 198.51.100.2:")), "{pong}");
    mesh.kernel_ping();
    mesh.transfer();
    assert_eq!(mesh.a.path_to("flappie").as_deref(), Some("direct"));
}

#[test]
fn a_peer_whose_router_lets_out_only_the_web_is_relayed_also_by_a_relay_that_comes_back() {
    if !able() {
        return;
    }
    let mut mesh = Mesh::start("r", [Lets::WebOnly, Lets::Everything]);
    let pong = mesh.a.print(&["ping", "flappie", "--count", "3"]);
    assert!(pong.lines().last().is_some_and(|line| line.contains("via relay nl")), "{pong}");
    mesh.kernel_ping();
    mesh.transfer();
    assert_eq!(mesh.a.path_to("flappie").as_deref(), Some("relay"));

    // Killed, not asked, while a connection is under way.
    let stream = mesh.stream(6 << 20);
    wait_until("the stream flows", || stream.got() >= 1 << 20);
    drop(mesh.relay.take());
    let mut before = u64::MAX;
    wait_until("it stands still", || {
        let still = before == stream.got();
        before = stream.got();
        std::thread::sleep(Duration::from_millis(500));
        still
    });
    mesh.relay = Some(Mesh::relay(&mesh.relay_at));
    let back = Instant::now();
    wait_until("traffic resumes", || stream.got() > before);
    let took = back.elapsed();
    assert!(took < Duration::from_secs(5), "traffic resumed after {took:?}");
    stream.end();
    assert_eq!(mesh.a.path_to("flappie").as_deref(), Some("relay"));
}

/// Not a test: how fast the kernel's TCP is through the tunnel, with and without the kernel's batches. With another build:
/// `PUNCHBAG_PROGRAM=target/release/punchbag cargo test --test programs -- --ignored --nocapture throughput`.
#[test]
#[ignore = "a measurement"]
fn throughput() {
    if !able() {
        return;
    }
    let bytes = 256 << 20;
    let mut rates = Vec::new();
    for (name, flags) in [("off", &["--no-offload"][..]), ("on", &[])] {
        let mesh = Mesh::start_with(name, [Lets::Everything; 2], flags);
        mesh.a.print(&["ping", "flappie"]);
        mesh.pour(8 << 20);
        let began = Instant::now();
        mesh.pour(bytes);
        rates.push(bytes as f64 * 8.0 / 1e6 / began.elapsed().as_secs_f64());
        assert_eq!(mesh.a.path_to("flappie").as_deref(), Some("direct"));
    }
    let mut out = std::io::stdout();
    let words = format!(
        "offload off: {:.0} Mbit/s, on: {:.0} Mbit/s, gain {:.2}",
        rates[0],
        rates[1],
        rates[1] / rates[0]
    );
    writeln!(out, "{words}").expect("told");
}

//! What the programs are told beside where the others are: proxies, authorities, who may use a relay, relays of one region.

use super::{Folder, Place, Running, wait_until};
use daemon::{Options, TokioNet, drive};
use program::{Input, Output, Program, ProxyProgram};
use proxy::{Credentials, Server, ServerConfig};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// A port of both protocols that was free a moment ago: two servers that must know each other's cannot both let the kernel
/// choose when they start.
fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let port = listener.local_addr().expect("an address").port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The key alone, of KEY+PIN.
fn key(printed: &str) -> &str {
    printed.split('+').next().unwrap_or_default()
}

/// A proxy that remembers where tunnels through it led.
struct Watched {
    proxy: ProxyProgram,
    targets: Arc<Mutex<BTreeSet<SocketAddr>>>,
}

impl Program for Watched {
    fn udp_ports(&self) -> Vec<u16> {
        self.proxy.udp_ports()
    }

    fn tcp_ports(&self) -> Vec<u16> {
        self.proxy.tcp_ports()
    }

    fn handle(&mut self, input: Input<'_>, now: Instant) {
        self.proxy.handle(input, now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.proxy.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.proxy.poll_timeout()
    }

    fn poll_output(&mut self) -> Option<Output> {
        let output = self.proxy.poll_output();
        if let Some(Output::Connect { to, .. }) = &output {
            self.targets.lock().expect("no panic").insert(*to);
        }
        output
    }
}

/// An HTTP proxy on loopback that lets through to some ports, until the test ends.
struct Proxy {
    at: SocketAddr,
    targets: Arc<Mutex<BTreeSet<SocketAddr>>>,
}

impl Proxy {
    fn start(at: SocketAddr, ports: &[u16], credentials: Option<Credentials>) -> Proxy {
        /// By this number the program knows its port.
        const PORT: u16 = 3128;
        let targets = Arc::<Mutex<BTreeSet<SocketAddr>>>::default();
        let ports = ports.iter().map(|port| *port..=*port).collect();
        let server = Server::new(ServerConfig { ports, credentials, ..ServerConfig::default() });
        let (tell, told) = std::sync::mpsc::channel();
        let theirs = Arc::clone(&targets);
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut net = TokioNet::new();
                let _ = tell.send(net.bind_tcp(Some(PORT), at).expect("loopback"));
                let proxy = ProxyProgram::new("proxy".into(), PORT, server);
                let program = Watched { proxy, targets: theirs };
                let _ = drive(program, net, Options::default(), std::future::pending()).await;
            });
        });
        Proxy { at: told.recv().expect("it listens"), targets }
    }

    fn targets(&self) -> Vec<u16> {
        self.targets.lock().expect("no panic").iter().map(SocketAddr::port).collect()
    }
}

/// Whether there are two kinds of loopback addresses, between which no datagram passes; says so if not.
fn two_kinds() -> bool {
    let able = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !able {
        use std::io::Write;
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: needs ::1, so that two peers of one machine cannot reach each other"
        );
    }
    able
}

/// A relay and a coordination server that knows it.
struct Servers {
    folder: Folder,
    _programs: [Running; 2],
    derp: SocketAddr,
    /// What peers are told.
    server: String,
    at: SocketAddr,
}

impl Servers {
    fn start(name: &str) -> Servers {
        let folder = Folder::new(name);
        let (relay_at, coord_at) = (Place::here(&folder.0, "relay"), Place::here(&folder.0, "coord"));
        let relay = relay_at.start(&["relay", "--listen", "127.0.0.1:0", "--stun", "127.0.0.1:0"]);
        let (derp, stun) = (relay.address("listening"), relay.address("STUN"));
        let spec = format!("nl={}@{derp}/{}", relay_at.print(&["relay", "--print-key"]), stun.port());
        let coord = coord_at.start(&["coord", "--listen", "127.0.0.1:0", "--relay", &spec]);
        let at = coord.address("listening");
        let server = format!("{}@{at}", coord_at.print(&["coord", "--print-key"]));
        Servers { folder, _programs: [relay, coord], derp, server, at }
    }
}

/// Starts a peer on a loopback address.
fn peer(place: &Place, name: &str, server: &str, address: &str, more: &[&str]) -> Running {
    let common = ["--coord", server, "--address", address, "--port", "0", "--userspace"];
    let peer = place.start(&[&["peer", name][..], &common, more].concat());
    wait_until("it can be asked", || place.state.join("control.sock").exists());
    peer
}

fn wait_for_pong(place: &Place, name: &str) -> String {
    wait_until("both are registered", || {
        place.status()["peers"].as_array().is_some_and(|peers| !peers.is_empty())
    });
    let mut pong = String::new();
    wait_until("an answer", || {
        let output = place.run(&["ping", name, "--count", "1"]);
        pong = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success()
    });
    pong
}

#[test]
fn two_peers_that_have_only_proxies_in_common_talk_through_a_relay() {
    if !two_kinds() {
        return;
    }
    let servers = Servers::start("proxy");
    let ports = [servers.derp.port(), servers.at.port()];
    let credentials = Credentials::new("takkie", "geheim").expect("fit");
    let strict = Proxy::start("[::1]:0".parse().expect("an address"), &ports, Some(credentials));
    let open = Proxy::start("127.0.0.1:0".parse().expect("an address"), &ports, None);
    let (takkie_at, flappie_at) =
        (Place::here(&servers.folder.0, "takkie"), Place::here(&servers.folder.0, "flappie"));

    let known = format!("takkie:geheim@{}", strict.at);
    let _takkie = peer(&takkie_at, "takkie", &servers.server, "::1", &["--proxy", &known]);
    let through = open.at.to_string();
    let _flappie = peer(&flappie_at, "flappie", &servers.server, "127.0.0.1", &["--proxy", &through]);
    let pong = wait_for_pong(&flappie_at, "takkie");
    assert!(pong.starts_with("pong from takkie") && pong.contains("via relay nl"), "{pong}");
    let both = BTreeSet::from(ports).into_iter().collect::<Vec<u16>>();
    assert_eq!((strict.targets(), open.targets()), (both.clone(), both));
}

#[test]
fn a_proxy_that_refuses_a_peer_is_named_with_its_reason_and_tried_again() {
    let servers = Servers::start("refused");
    let credentials = Credentials::new("takkie", "geheim").expect("fit");
    let at = "127.0.0.1:0".parse().expect("an address");
    let proxy = Proxy::start(at, &[servers.at.port()], Some(credentials));
    for (name, given) in [("wrong", format!("takkie:fout@{}", proxy.at)), ("none", proxy.at.to_string())] {
        let place = Place::here(&servers.folder.0, name);
        let running = peer(&place, name, &servers.server, "127.0.0.1", &["--proxy", &given]);
        for attempt in 0..2 {
            let said = running.hears("407");
            let whole = said.contains("coordination server") && said.contains("the proxy wants credentials");
            assert!(whole, "{attempt}: {said}");
        }
        assert_eq!(place.status()["coordinated"], false);
    }
    assert!(proxy.targets().is_empty(), "nobody got through");

    let place = Place::here(&servers.folder.0, "port");
    let known = format!("takkie:geheim@{}", proxy.at);
    let running = peer(&place, "port", &servers.server, "127.0.0.1", &["--proxy", &known]);
    running.hears("registered");
    let said = running.hears("403");
    assert!(said.contains("relay") && said.contains("proxy"), "{said}");
}

/// An authority, and what it vouches for.
struct Authority {
    certificate: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = folder.join(format!("{name}.pem"));
        let pem = params.self_signed(&key).expect("a certificate").pem();
        std::fs::write(&certificate, pem).expect("written");
        Authority { certificate, issuer: Issuer::new(params, key) }
    }

    fn path(&self) -> &str {
        self.certificate.to_str().expect("text")
    }

    /// The flags by which a server gets a certificate for that name.
    fn issue(&self, folder: &Path, name: &str) -> [String; 4] {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        let pem = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        let (certificate, private) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        std::fs::write(&certificate, pem).expect("written");
        std::fs::write(&private, key.serialize_pem()).expect("written");
        let text = |path: &Path| path.to_str().expect("text").to_owned();
        ["--certificate".into(), text(&certificate), "--certificate-key".into(), text(&private)]
    }
}

#[test]
fn servers_with_certificates_of_an_authority_are_known_by_their_names() {
    if !two_kinds() {
        return;
    }
    let folder = Folder::new("authorities");
    let place = |name: &str| Place::here(&folder.0, name);
    let (ours, other) = (Authority::new(&folder.0, "ours"), Authority::new(&folder.0, "other"));
    let (relay_at, coord_at, admin_at) = (place("relay"), place("coord"), place("admin"));
    let flags = |flags: &'static [&'static str], certificate: &[String]| {
        flags.iter().copied().map(str::to_owned).chain(certificate.iter().cloned()).collect::<Vec<String>>()
    };
    let certificate = ours.issue(&folder.0, "relay.example");
    let start =
        |place: &Place, all: &[String]| place.start(&all.iter().map(String::as_str).collect::<Vec<_>>());
    let relay = start(
        &relay_at,
        &flags(&["relay", "--listen", "127.0.0.1:0", "--stun", "127.0.0.1:0"], &certificate),
    );
    let (derp, stun) = (relay.address("listening"), relay.address("STUN"));
    let printed = relay_at.print(&["relay", "--print-key"]);
    let spec = format!("nl={}+relay.example@{derp}/{}", key(&printed), stun.port());
    let admin = admin_at.print(&["admin", "print-key"]);
    let certificate = ours.issue(&folder.0, "coord.example");
    let mut all = flags(&["coord", "--listen", "127.0.0.1:0"], &certificate);
    all.extend(["--relay", &spec, "--admin", &admin].map(str::to_owned));
    let coord = start(&coord_at, &all);
    let at = coord.address("listening");
    let printed = coord_at.print(&["coord", "--print-key"]);
    let server = format!("{}+coord.example@{at}", key(&printed));

    let (takkie_at, flappie_at) = (place("takkie"), place("flappie"));
    let trust = ["--authorities", ours.path()];
    let _takkie = peer(&takkie_at, "takkie", &server, "127.0.0.1", &trust);
    // The relay and the coordination server have addresses of one kind only, so that the other peer needs a proxy.
    let through = Proxy::start("[::1]:0".parse().expect("an address"), &[derp.port(), at.port()], None);
    let through = through.at.to_string();
    let _flappie =
        peer(&flappie_at, "flappie", &server, "::1", &[&trust[..], &["--proxy", &through]].concat());
    let pong = wait_for_pong(&flappie_at, "takkie");
    assert!(pong.contains("via relay nl"), "{pong}");
    let nodes = admin_at.print(&["admin", "--coord", &server, "--authorities", ours.path(), "nodes"]);
    assert!(nodes.contains("takkie"), "{nodes}");

    // Others do not vouch for it, nor does this one for another name.
    let wrong_name = format!("{}+another.example@{at}", key(&printed));
    for (name, server, trusted, why) in [
        ("stranger", &server, other.path(), "UnknownIssuer"),
        ("elsewhere", &wrong_name, ours.path(), "another.example"),
    ] {
        let place = place(name);
        let running = peer(&place, name, server, "127.0.0.1", &["--authorities", trusted]);
        let said = running.hears("certificate");
        assert!(said.contains("coordination server") && said.contains(why), "{said}");
        assert_eq!(place.status()["coordinated"], false);
        let refused = admin_at.run(&["admin", "--coord", server, "--authorities", trusted, "nodes"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(2) && said.contains(why), "{said}");
    }
    let refused = place("none").run(&["peer", "none", "--coord", &server, "--userspace", "--port", "0"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && said.contains("--authorities FILE"), "{said}");
}

#[test]
fn a_relay_that_asks_the_coordination_server_serves_the_machines_of_its_network_alone() {
    if !two_kinds() {
        return;
    }
    let folder = Folder::new("admission");
    let place = |name: &str| Place::here(&folder.0, name);
    let (relay_at, coord_at, other_at) = (place("relay"), place("coord"), place("other"));
    let port = free_port();
    let spec = format!("nl={}@127.0.0.1:{port}/{port}", relay_at.print(&["relay", "--print-key"]));
    let listen = ["coord", "--listen", "127.0.0.1:0", "--relay", &spec];
    let (coord, other) = (coord_at.start(&listen), other_at.start(&listen));
    let (at, other_addr) = (coord.address("listening"), other.address("listening"));
    let server = format!("{}@{at}", coord_at.print(&["coord", "--print-key"]));
    let elsewhere = format!("{}@{other_addr}", other_at.print(&["coord", "--print-key"]));
    let here = format!("127.0.0.1:{port}");
    let relay = relay_at.start(&["relay", "--listen", &here, "--stun", &here, "--coord", &server]);
    relay.hears("who may use this relay");

    let (takkie_at, flappie_at) = (place("takkie"), place("flappie"));
    let _takkie = peer(&takkie_at, "takkie", &server, "127.0.0.1", &[]);
    let through = Proxy::start("[::1]:0".parse().expect("an address"), &[port, at.port()], None);
    let through = through.at.to_string();
    let _flappie = peer(&flappie_at, "flappie", &server, "::1", &["--proxy", &through]);
    let pong = wait_for_pong(&flappie_at, "takkie");
    assert!(pong.contains("via relay nl"), "{pong}");

    // Of another network, whose coordination server knows the relay too.
    let stranger_at = place("stranger");
    let stranger = peer(&stranger_at, "stranger", &elsewhere, "127.0.0.1", &[]);
    stranger.hears("registered");
    let refused = relay.hears("refused");
    let key = stranger_at.status()["key"].as_str().expect("a key").to_owned();
    assert!(refused.contains(&key[..16]), "{refused}");
    assert_eq!(stranger_at.status()["home_relay_connected"], false);
}

#[test]
fn relays_that_share_a_secret_hand_packets_to_each_other_and_others_do_not() {
    if !two_kinds() {
        return;
    }
    let folder = Folder::new("relays");
    let place = |name: &str| Place::here(&folder.0, name);
    let (ams_at, fra_at, coord_at) = (place("ams"), place("fra"), place("coord"));
    let secret = |name: &str, text: &str| {
        let path = folder.0.join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("text").to_owned()
    };
    let (good, bad) = (secret("secret", "twee honden\n"), secret("guess", "een kat\n"));
    let (ams, fra) = (free_port(), free_port());
    let spec = |name: &str, at: &Place, port: u16| {
        format!("eu/{name}={}@127.0.0.1:{port}/{port}", at.print(&["relay", "--print-key"]))
    };
    let (ams_spec, fra_spec) = (spec("ams", &ams_at, ams), spec("fra", &fra_at, fra));
    let relay = |at: &Place, port: u16, other: &str, secret: &str| {
        let here = format!("127.0.0.1:{port}");
        at.start(&["relay", "--listen", &here, "--stun", &here, "--mesh", other, "--mesh-secret", secret])
    };
    let ams_relay = relay(&ams_at, ams, &fra_spec, &good);
    // With another secret it is not let in, and says so.
    let guesser = relay(&fra_at, fra, &ams_spec, &bad);
    let said = guesser.hears("link to relay eu/ams");
    assert!(said.contains("secret"), "{said}");

    let listen = ["coord", "--listen", "127.0.0.1:0", "--relay", &ams_spec, "--relay", &fra_spec];
    let coord = coord_at.start(&listen);
    let at = coord.address("listening");
    let server = format!("{}@{at}", coord_at.print(&["coord", "--print-key"]));
    // Each peer gets to one of the relays only.
    let (takkie_at, flappie_at) = (place("takkie"), place("flappie"));
    let to_ams = Proxy::start("127.0.0.1:0".parse().expect("an address"), &[ams, at.port()], None);
    let to_fra = Proxy::start("[::1]:0".parse().expect("an address"), &[fra, at.port()], None);
    let (to_ams, to_fra) = (to_ams.at.to_string(), to_fra.at.to_string());
    let _takkie = peer(&takkie_at, "takkie", &server, "127.0.0.1", &["--proxy", &to_ams]);
    let _flappie = peer(&flappie_at, "flappie", &server, "::1", &["--proxy", &to_fra]);
    let connected = |place: &Place| place.status()["home_relay_connected"] == true;
    wait_until("each is connected to its relay", || connected(&takkie_at) && connected(&flappie_at));
    let silent = flappie_at.run(&["ping", "takkie", "--count", "2"]);
    assert_eq!(silent.status.code(), Some(1), "{}", String::from_utf8_lossy(&silent.stdout));

    // Both anew, as they ask each other ever less often.
    drop((guesser, ams_relay));
    let (ams_relay, fra_relay) =
        (relay(&ams_at, ams, &fra_spec, &good), relay(&fra_at, fra, &ams_spec, &good));
    wait_until("linked", || fra_relay.hears("link to relay eu/ams").contains("up"));
    wait_until("linked", || ams_relay.hears("link to relay eu/fra").contains("up"));
    let pong = wait_for_pong(&flappie_at, "takkie");
    assert!(pong.contains("via relay eu/"), "{pong}");
    for (name, running) in [("ams", ams_relay), ("fra", fra_relay)] {
        assert_eq!(running.end(), Some(0), "{name}");
    }
}

//! How the programs behave towards those who run them: service managers, monitoring, people who mistype.

use super::{Folder, PATIENCE, Place, Running};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;

#[test]
fn a_service_manager_is_told_when_a_program_is_ready_and_when_it_begins_to_end() {
    let folder = Folder::new("notify");
    let socket = folder.0.join("notify");
    let manager = UnixDatagram::bind(&socket).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let told = || {
        let mut buffer = [0; 256];
        let len = manager.recv(&mut buffer).expect("it is told");
        String::from_utf8_lossy(&buffer[..len]).trim().to_owned()
    };
    let place = Place::here(&folder.0, "relay");
    let args = ["relay", "--listen", "127.0.0.1:0", "--stun", "127.0.0.1:0", "--log-format", "json"];
    let mut command = place.punchbag(&args);
    command.env("NOTIFY_SOCKET", &socket);
    let relay = Running::start(command);
    assert_eq!(told(), "READY=1");
    // By then there is somebody to connect to.
    TcpStream::connect(relay.address("listening")).expect("it listens");
    assert_eq!(relay.end(), Some(0));
    assert_eq!(told(), "STOPPING=1");
}

/// What is wrong with metrics in OpenMetrics' text format, if anything is: each sample belongs to a family that was announced, and
/// those of counters are named so.
fn wrong_with(metrics: &str) -> Option<&str> {
    let mut family = ("", "");
    let mut lines = metrics.lines();
    if lines.next_back() != Some("# EOF") {
        return Some("no end");
    }
    lines.find(|line| {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split_once(' ').unwrap_or_default();
            return !matches!(family.1, "gauge" | "counter");
        }
        if line.starts_with("# HELP ") {
            return false;
        }
        let (name, value) = line.rsplit_once(' ').unwrap_or_default();
        let (name, labels) = name.split_once('{').map_or((name, None), |(name, labels)| (name, Some(labels)));
        let suffix = if family.1 == "counter" { "_total" } else { "" };
        name.strip_suffix(suffix) != Some(family.0)
            || value.parse::<f64>().is_err()
            || labels.is_some_and(|labels| !labels.ends_with("\"}"))
    })
}

fn get(at: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(at).expect("the metrics");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {at}\r\n\r\n").expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

#[test]
fn monitoring_reads_what_each_program_counts() {
    assert_eq!(wrong_with("# TYPE a gauge\na 1\n# EOF"), None);
    assert_eq!(wrong_with("# TYPE a counter\na 1\n# EOF"), Some("a 1"));
    let folder = Folder::new("metrics");
    let place = |name: &str| Place::here(&folder.0, name);
    let (relay_at, coord_at, peer_at) = (place("relay"), place("coord"), place("peer"));
    let metrics = ["--metrics", "127.0.0.1:0"];
    let listen = ["--listen", "127.0.0.1:0"];
    let relay = relay_at.start(&[&["relay", "--stun", "127.0.0.1:0"][..], &listen, &metrics].concat());
    let coord = coord_at.start(&[&["coord"][..], &listen, &metrics].concat());
    let server = format!("{}@{}", coord_at.print(&["coord", "--print-key"]), coord.address("listening"));
    let common =
        ["peer", "takkie", "--coord", &server, "--address", "127.0.0.1", "--port", "0", "--userspace"];
    let peer = peer_at.start(&[&common[..], &metrics].concat());
    let [relay_count, coord_count, peer_count] = [&relay, &coord, &peer].map(|it| it.address("metrics"));
    peer.hears("registered");
    for (at, count) in [
        (relay_count, "punchbag_relay_connections 0\n"),
        (coord_count, "punchbag_coord_online 1\n"),
        (peer_count, "punchbag_peer_coordinated 1\n"),
    ] {
        let (head, body) = get(at, "/metrics");
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("application/openmetrics-text"), "{head}");
        assert_eq!(wrong_with(&body), None, "{body}");
        assert!(body.contains(count), "{body}");
        assert!(get(at, "/").0.starts_with("HTTP/1.1 404 "));
    }
    let elsewhere = place("other").run(&[&common[..], &["--metrics", "0.0.0.0:0"]].concat());
    let said = String::from_utf8_lossy(&elsewhere.stderr).into_owned();
    assert!(elsewhere.status.code() == Some(2) && said.contains("loopback only"), "{said}");
}

#[test]
fn a_mistake_is_named_with_its_place_and_what_helps() {
    let folder = Folder::new("mistakes");
    let place = Place::here(&folder.0, "state");
    let config = folder.0.join("punchbag.toml");
    let said = |args: &[&str]| {
        let output = place.run(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        said
    };
    let path = config.to_str().expect("text");
    for (program, text, why) in [
        ("relay", "listen = [\"127.0.0.1:0\"]\nstun = \"127.0.0.1\"\n", "line 2"),
        ("coord", "listen = [\"127.0.0.1:0\"\n", "unclosed array"),
        ("peer", "\n\nnaam = \"takkie\"\n", "line 3"),
    ] {
        std::fs::write(&config, text).expect("written");
        let said = said(&[program, "--config", path]);
        assert!(said.contains(path) && said.contains(why), "{said}");
    }

    let (tcp, udp) = (
        TcpListener::bind("127.0.0.1:0").expect("loopback"),
        UdpSocket::bind("127.0.0.1:0").expect("loopback"),
    );
    let (tcp, at) =
        (tcp.local_addr().expect("an address").to_string(), udp.local_addr().expect("an address"));
    let (udp, port) = (at.to_string(), at.port().to_string());
    let key = "0f".repeat(32);
    let nobody = format!("{key}@127.0.0.1:1");
    let to_nobody = ["peer", "takkie", "--userspace", "--coord", &nobody];
    for (args, why) in [
        (vec!["relay", "--listen", &tcp, "--stun", "127.0.0.1:0"], "another program has it"),
        (vec!["relay", "--listen", "127.0.0.1:0", "--stun", &udp], "another program has it"),
        // Not even where the other IP version of the port is free.
        ([&to_nobody[..], &["--port", &port]].concat(), "--port 0"),
        ([&to_nobody[..], &["--log", "a=b=c"]].concat(), "--log a=b=c"),
        (vec!["peer", "takkie", "--userspace"], "punchbag coord --print-key"),
        (vec!["ping", "takkie"], "start one with `punchbag peer`"),
    ] {
        let said = said(&args);
        assert!(said.contains(why), "{said}");
    }

    // A server that is not there is no mistake: it may come.
    let peer = place.start(&[&to_nobody[..], &["--port", "0", "--address", "127.0.0.1"]].concat());
    for _ in 0..2 {
        assert!(peer.hears("coordination server").contains("connecting"));
        assert!(peer.hears("coordination server").contains("no connection: refused"));
    }
    assert_eq!(peer.end(), Some(0));
}

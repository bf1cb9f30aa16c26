//! The mesh of the README on loopback, without rights.

use super::{Folder, Place, wait_until};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// A web server as small as can be: the same page for every request, until the test ends.
fn web() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let at = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        }
    });
    at
}

fn get(mut stream: TcpStream) -> String {
    stream.set_read_timeout(Some(super::PATIENCE)).expect("a timeout");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// Asks a SOCKS 5 server for port 80 of a peer (RFC 1928).
fn socks(at: SocketAddr, name: &str) -> TcpStream {
    let mut stream = TcpStream::connect(at).expect("the SOCKS server");
    stream.set_read_timeout(Some(super::PATIENCE)).expect("a timeout");
    let len = u8::try_from(name.len()).expect("short");
    let request = [&[5, 1, 0, 5, 1, 0, 3, len][..], name.as_bytes(), &80_u16.to_be_bytes()].concat();
    stream.write_all(&request).expect("written");
    let mut reply = [0; 12];
    stream.read_exact(&mut reply).expect("a reply");
    assert_eq!(reply[..4], [5, 0, 5, 0], "granted");
    stream
}

#[test]
fn a_mesh_of_processes_on_one_machine_carries_connections_directly_and_ends_cleanly() {
    let folder = Folder::new("mesh");
    let place = |name: &str| Place::here(&folder.0, name);
    let (relay_at, coord_at, takkie_at, flappie_at) =
        (place("relay"), place("coord"), place("takkie"), place("flappie"));

    let relay = relay_at.start(&["relay", "--listen", "127.0.0.1:0", "--stun", "127.0.0.1:0"]);
    let (derp, stun) = (relay.address("listening"), relay.address("STUN"));
    let spec = format!("nl={}@{derp}/{}", relay_at.print(&["relay", "--print-key"]), stun.port());
    let coord = coord_at.start(&["coord", "--listen", "127.0.0.1:0", "--relay", &spec]);
    let server = format!("{}@{}", coord_at.print(&["coord", "--print-key"]), coord.address("listening"));

    let common = ["--coord", &server, "--address", "127.0.0.1", "--port", "0"];
    let expose = format!("80={}", web());
    let takkie = takkie_at.start(&[&["peer", "takkie"][..], &common, &["--expose", &expose]].concat());
    let flappie = flappie_at.start(
        &[
            &["peer", "flappie"][..],
            &common,
            &["--socks5", "127.0.0.1:0", "--forward", "127.0.0.1:0=takkie:80"],
        ]
        .concat(),
    );
    let (socks_at, forward_at) = (flappie.address("SOCKS 5"), flappie.address("forwarding"));
    wait_until("both are registered", || {
        flappie_at.status()["peers"].as_array().is_some_and(|peers| !peers.is_empty())
    });

    assert!(get(socks(socks_at, "takkie")).ends_with("hello"));
    assert!(get(TcpStream::connect(forward_at).expect("the port")).ends_with("hello"));
    let pong = flappie_at.print(&["ping", "takkie"]);
    let last = pong.lines().last().unwrap_or_default();
    assert!(last.starts_with("pong from takkie (100.64.0.") && last.contains("via 127.0.0.1:"), "{pong}");
    assert_eq!(flappie_at.path_to("takkie").as_deref(), Some("direct"));
    let table = flappie_at.print(&["status"]);
    assert!(table.contains("takkie") && table.contains("direct 127.0.0.1:"), "{table}");
    let nobody = flappie_at.run(&["ping", "nobody"]);
    assert_eq!(nobody.status.code(), Some(2), "{}", String::from_utf8_lossy(&nobody.stderr));

    let mut joined = [coord.says("joined", "name"), coord.says("joined", "name")];
    joined.sort();
    assert_eq!(joined, ["flappie", "takkie"]);
    assert_eq!(takkie.end(), Some(0), "takkie");
    assert_eq!(coord.says("left", "name"), "takkie");
    for (name, running) in [("flappie", flappie), ("relay", relay), ("coord", coord)] {
        assert_eq!(running.end(), Some(0), "{name}");
    }
    let gone = flappie_at.run(&["status"]);
    assert_eq!(gone.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&gone.stderr).contains("start one with `punchbag peer`"));
}

#[test]
fn a_key_that_others_may_read_is_refused_with_the_command_that_helps() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("key");
    let place = Place::here(&folder.0, "relay");
    let key = place.print(&["relay", "--print-key"]);
    assert_eq!(place.print(&["relay", "--print-key"]), key, "made once");

    let path = place.state.join("relay.key");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("its owner may");
    let refused = place.run(&["relay", "--print-key"]);
    assert_eq!(refused.status.code(), Some(2));
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains(&format!("chmod 600 {}", path.display())), "{message}");
}

#[test]
fn an_administrator_lets_machines_in_and_sends_them_away() {
    let folder = Folder::new("admin");
    let place = |name: &str| Place::here(&folder.0, name);
    let (admin_at, coord_at, takkie_at, flappie_at) =
        (place("admin"), place("coord"), place("takkie"), place("flappie"));
    let key = admin_at.print(&["admin", "print-key"]);
    let coord = coord_at.start(&["coord", "--closed", "--admin", &key, "--listen", "127.0.0.1:0"]);
    let server = format!("{}@{}", coord_at.print(&["coord", "--print-key"]), coord.address("listening"));
    let admin = |args: &[&str]| admin_at.print(&[&["admin", "--coord", &server][..], args].concat());
    let json = |args: &[&str]| {
        serde_json::from_str::<serde_json::Value>(&admin(&[args, &["--json"]].concat())).expect("JSON")
    };

    let common = ["--coord", &server, "--address", "127.0.0.1", "--port", "0", "--socks5", "127.0.0.1:0"];
    let _takkie = takkie_at.start(&[&["peer", "takkie"][..], &common].concat());
    let standing = |name: &str| {
        let nodes = json(&["nodes"]);
        let node = nodes["nodes"].as_array()?.iter().find(|node| node["name"] == name)?.clone();
        node["standing"].as_str().map(str::to_owned)
    };
    wait_until("takkie waits", || standing("takkie").as_deref() == Some("waiting"));
    admin(&["approve", "takkie"]);
    let auth = admin(&["keys", "create", "--tag", "web"]);
    let _flappie = flappie_at.start(&[&["peer", "flappie"][..], &common, &["--auth-key", &auth]].concat());
    wait_until("both know each other", || {
        takkie_at.path_to("flappie").is_some() || {
            takkie_at.status()["peers"].as_array().is_some_and(|peers| !peers.is_empty())
        }
    });
    assert!(admin(&["nodes"]).contains("web"), "the key's tag");
    assert_eq!(json(&["keys", "list"])["keys"][0]["used"], 1);

    let rules = folder.0.join("rules.toml");
    std::fs::write(&rules, "[[rules]]\nfrom = [\"takkie\"]\nto = [\"tag:web\"]\n").expect("written");
    admin(&["access", "set", rules.to_str().expect("text")]);
    assert_eq!(json(&["access", "show"])["access"]["rules"][0]["to"][0], "tag:web");

    admin(&["revoke", "flappie"]);
    assert_eq!(standing("flappie").as_deref(), Some("revoked"));
    wait_until("takkie forgets it", || takkie_at.status()["peers"].as_array().is_some_and(Vec::is_empty));
    let stranger = place("stranger").run(&["admin", "--coord", &server, "nodes"]);
    let why = String::from_utf8_lossy(&stranger.stderr).into_owned();
    assert!(stranger.status.code() == Some(2) && why.contains("--admin keys"), "{why}");
}

#[test]
fn a_coordination_server_takes_lifetimes_and_access_rules_from_its_file() {
    let folder = Folder::new("terms");
    let place = |name: &str| Place::here(&folder.0, name);
    let (admin_at, coord_at, takkie_at) = (place("admin"), place("coord"), place("takkie"));
    let written = |name: &str, text: &str| {
        let path = folder.0.join(name);
        std::fs::write(&path, text).expect("our own folder");
        path.to_str().expect("text").to_owned()
    };
    let rules = written("rules.toml", "[[rules]]\nfrom = [\"takkie\"]\nto = [\"flappie\"]\n");
    let key = admin_at.print(&["admin", "print-key"]);
    let settings = |rules: &str| {
        format!(
            "listen = [\"127.0.0.1:0\"]\nadmin = [\"{key}\"]\nkey-lifetime = \"1h\"\naccess = \"{rules}\"\n"
        )
    };

    let unsound = written("unsound.toml", "[[rules]]\nfrom = [\"group:staff\"]\nto = [\"*\"]\n");
    let refused = coord_at.run(&["coord", "--config", &written("unsound-coord.toml", &settings(&unsound))]);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.status.code() == Some(2) && why.contains("unsound.toml") && why.contains("staff"),
        "{why}"
    );

    let coord = coord_at.start(&["coord", "--config", &written("coord.toml", &settings(&rules))]);
    let server = format!("{}@{}", coord_at.print(&["coord", "--print-key"]), coord.address("listening"));
    let admin = |args: &[&str]| {
        let answer = admin_at.print(&[&["admin", "--json", "--coord", &server][..], args].concat());
        serde_json::from_str::<serde_json::Value>(&answer).expect("JSON")
    };
    let common = ["--coord", &server, "--address", "127.0.0.1", "--port", "0", "--socks5", "127.0.0.1:0"];
    let _takkie = takkie_at.start(&[&["peer", "takkie"][..], &common].concat());
    wait_until("takkie has registered", || admin(&["nodes"])["nodes"][0]["name"] == "takkie");
    let node = &admin(&["nodes"])["nodes"][0];
    let number = |value: &serde_json::Value| value.as_u64().expect("seconds of Unix time");
    assert_eq!(number(&node["key_expires"]) - number(&node["created"]), 3600);
    assert_eq!(admin(&["access", "show"])["access"]["rules"][0]["to"][0], "flappie");
    let made = admin(&["keys", "create", "--lifetime", "90s"]);
    assert_eq!(number(&made["expires"]) - number(&made["created"]), 90);
}

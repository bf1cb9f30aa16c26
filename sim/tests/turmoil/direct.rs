//! The shells on turmoil's own sockets: no NAT, no simulated host beneath them.

use daemon::{Options, drive};
use punchbag::Program;
use punchbag::host::{
    Apps, COORDINATOR_PORTS, CoordinatorProgram, FlowSpec, PeerProgram, RELAY_PORTS, RelayProgram, STUN_PORT,
};
use punchbag::world::turmoil::TurmoilNet;
use punchbag::world::{Clock, Seed};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use trace::{Event, FlowKind, Path};

type Log = Rc<RefCell<Vec<Event>>>;

/// Runs what `make` gives at the time of its start, anew after each bounce.
fn host<P: Program>(
    sim: &mut turmoil::Sim<'_>,
    name: &'static str,
    log: &Log,
    make: impl Fn(Instant) -> P + 'static,
) {
    let (log, make) = (Rc::clone(log), Rc::new(make));
    sim.host(name, move || {
        let (log, make) = (Rc::clone(&log), Rc::clone(&make));
        async move {
            let program = make(tokio::time::Instant::now().into_std());
            let options = Options {
                on_event: Box::new(move |event, _| log.borrow_mut().push(event)),
                ..Options::default()
            };
            drive(program, TurmoilNet::new(name), options, std::future::pending()).await?;
            Ok(())
        }
    });
}

fn peer(name: &'static str, seed: u8, coordinator: SocketAddr, key: [u8; 32], pings: bool) -> PeerProgram {
    let now = tokio::time::Instant::now().into_std();
    let config = peer::Config {
        name: name.into(),
        keys: peer::Keys { node: [seed; 32], disco: [seed + 1; 32], machine: [seed + 2; 32] },
        coordinator: vec![coordinator],
        coordinator_key: key,
        coordinator_host: String::new(),
        coordinator_tls: None,
        auth_key: None,
        authorities: None,
        map: None,
        epoch: Duration::from_secs(1_767_225_600),
        policy: peer::Policy::default(),
        proxy: None,
    };
    let flow = FlowSpec {
        index: 0,
        name: "ping takkie flappie".into(),
        kind: FlowKind::Ping,
        initiator: pings,
        other: if pings { "flappie" } else { "takkie" }.into(),
        at: Duration::from_secs(1),
        stop: None,
        interval: Duration::from_millis(100),
        size: 64,
        bytes: 0,
    };
    let apps = Apps::new(name.into(), vec![flow], Clock::new().epoch(), now);
    let core = peer::Peer::new(config, Seed(seed.into()).chacha("peer"), now);
    PeerProgram::new(name.into(), core, apps, None, now)
}

#[test]
fn the_shells_run_unchanged_on_turmoils_own_sockets() {
    let mut sim = turmoil::Builder::new()
        .rng_seed(1)
        .simulation_duration(Duration::from_secs(60))
        .udp_capacity(1024)
        .min_message_latency(Duration::from_millis(10))
        .max_message_latency(Duration::from_millis(10))
        .build();
    let log = Log::default();
    let key = || derp::PrivateKey::from_bytes([7; 32]);
    host(&mut sim, "relay", &log, move |now| {
        let server = derp::server::Server::new(
            derp::server::ServerConfig::default(),
            key(),
            Seed(1).chacha("relay"),
            now,
        );
        RelayProgram::new("relay".into(), server)
    });
    let relay = sim.lookup("relay");
    host(&mut sim, "coordinator", &log, move |now| {
        let info = coord::RelayInfo {
            region: 1,
            name: "relay".into(),
            key: key().public().0,
            addr: relay,
            addr6: None,
            derp_ports: RELAY_PORTS.to_vec(),
            tls: None,
            stun: vec![(relay, STUN_PORT).into()],
        };
        let config = coord::server::ServerConfig::new([9; 32], vec![info]);
        let server = coord::server::Server::new(config, Seed(1).chacha("coordinator"), now);
        CoordinatorProgram::new("coordinator".into(), server, None)
    });
    let coordinator = SocketAddr::from((sim.lookup("coordinator"), COORDINATOR_PORTS[0]));
    let coordinator_key = coord::public_key(&[9; 32]);
    host(&mut sim, "takkie", &log, move |_| peer("takkie", 10, coordinator, coordinator_key, true));
    host(&mut sim, "flappie", &log, move |_| peer("flappie", 20, coordinator, coordinator_key, false));

    while sim.elapsed() < Duration::from_secs(10) {
        sim.step().expect("no shell ends");
    }

    let log = log.borrow();
    let answered = |event: &&Event| matches!(event, Event::Echo { .. });
    assert!(log.iter().filter(answered).count() > 50, "most pings were answered");
    let last = log.iter().rfind(answered);
    // Ten milliseconds each way, and no NAT.
    let Some(Event::Echo { out, back, rtt_ns, .. }) = last else { panic!("an echo") };
    assert_ne!((*out, *back), (Path::Relay, Path::Relay));
    assert!((20_000_000..25_000_000).contains(rtt_ns), "{rtt_ns}");
}

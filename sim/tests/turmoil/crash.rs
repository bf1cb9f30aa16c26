//! Machines that lose power, programs that are killed, and an internet that comes apart, with the shells of real machines on
//! top: whatever happens, everybody finds everybody again.
//!
//! A few seeds of each run here. Environment variables ask for more:
//! - `PUNCHBAG_SEEDS=200`: so many of each, or `PUNCHBAG_SEEDS=17-19`: these;
//! - `PUNCHBAG_PEERS=20`: with so many peers only;
//! - `PUNCHBAG_LOGS=FOLDER`: the event log of each seed that failed goes there.
//!
//! All of them: `PUNCHBAG_SEEDS=200 cargo test -p punchbag --release --test turmoil crash -- --test-threads 1`.

use crate::common::{jobs, scenario};
use crate::errors;
use program::{CoordinatorProgram, RelayProgram};
use punchbag::campaign;
use punchbag::scenario::{Action, Place};
use punchbag::topology::Topology;
use punchbag::world::turmoil::{Bench, Fault};
use punchbag::world::{Options, Seed};
use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::Duration;
use trace::Event;

/// Coarse, as the outcome does not hang on a few milliseconds: nearly ten times as fast as scenarios are played.
const TICK: Duration = Duration::from_millis(10);
/// Everybody is known to everybody, and has left the relay.
const WARM: Duration = Duration::from_secs(6);
/// From the last fault until every flow runs again. What takes longest is a connection whose other end has vanished without a
/// word: whoever sends on it believes in it until retransmissions end or the other side stays silent.
const BOUND: Duration = Duration::from_secs(40);
/// What the coordination server's disk takes for a write: a crash may come in the middle of it.
const DISK: Duration = Duration::from_millis(25);
/// The most that a relay may have waiting for one client, and the coordination server for one machine: what a burst makes
/// while a path is dead. The limits of both are far above it.
const MOST_QUEUED: [usize; 2] = [64 * 1024, 128 * 1024];
/// Then every flow has to have an answer within this time.
const ALIVE: Duration = Duration::from_secs(4);

/// What happens, and when.
enum Do {
    Act(Box<Action>),
    Fault(Fault),
}

type Plan = Vec<(Duration, Do)>;
type MakePlan = fn(&Town, &mut Chance) -> Plan;

fn act(action: Action) -> Do {
    Do::Act(Box::new(action))
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Two peers in two homes, or twenty in four.
struct Town {
    peers: usize,
}

impl Town {
    fn homes(&self) -> usize {
        if self.peers == 2 { 2 } else { 4 }
    }

    fn text(&self) -> String {
        let mut text = String::from("title = \"crashes\"\nwhy = \"a test\"\nuntil = \"120s\"\n");
        let nats = ["port-restricted-cone", "port-restricted-cone", "full-cone", "linux"];
        let regions = ["eu-west", "us-east", "eu-central", "us-east"];
        for home in 0..self.homes() {
            let (nat, region) = (nats[home], regions[home]);
            text += &format!("[router.home-{home}]\nregion = \"{region}\"\nnat = \"{nat}\"\n");
        }
        for peer in 0..self.peers {
            text += &format!("[host.{}]\nbehind = \"home-{}\"\n", self.peer(peer), peer % self.homes());
        }
        // A ring: each talks to the next.
        for peer in 0..self.peers {
            let next = (peer + 1) % self.peers;
            if next != peer && (self.peers > 2 || peer == 0) {
                text += &format!(
                    "[[traffic]]\nkind = \"ping\"\nfrom = \"{}\"\nto = \"{}\"\nat = \"2s\"\ninterval = \"500ms\"\n",
                    self.peer(peer),
                    self.peer(next)
                );
            }
        }
        text
    }

    fn peer(&self, index: usize) -> String {
        format!("peer-{index}")
    }
}

struct Chance(Pcg64Mcg);

impl Chance {
    fn between(&mut self, from: u64, to: u64) -> u64 {
        self.0.random_range(from..=to)
    }

    fn at(&mut self) -> Duration {
        WARM + ms(self.between(0, 6_000))
    }

    fn off(&mut self) -> Duration {
        ms(self.between(100, 5_000))
    }
}

fn relay_crash(_: &Town, chance: &mut Chance) -> Plan {
    let crash = |chance: &mut Chance| {
        (chance.at(), act(Action::Crash { node: "relay".into(), off: Some(chance.off()) }))
    };
    vec![crash(chance), crash(chance)]
}

/// While the first register, and while a newcomer is told to the others.
fn coordinator_crash(town: &Town, chance: &mut Chance) -> Plan {
    let crash = |off| act(Action::Crash { node: punchbag::topology::COORDINATOR.into(), off: Some(off) });
    let newcomer = town.peer(chance.between(0, town.peers as u64 - 1) as usize);
    let (at, off) = (chance.at(), ms(chance.between(50, 500)));
    let registering = at + off + ms(chance.between(0, 300));
    vec![
        (ms(chance.between(0, 400)), crash(chance.off())),
        (at, act(Action::RestartHost { host: newcomer, off, keeps: false })),
        (registering, crash(chance.off())),
    ]
}

fn partition(town: &Town, chance: &mut Chance) -> Plan {
    let nodes = ["relay".to_owned(), punchbag::topology::COORDINATOR.to_owned(), "home-1".to_owned()];
    let mut plan = Vec::new();
    for node in nodes {
        let (at, home) = (chance.at(), chance.between(0, town.homes() as u64 - 1));
        let from = format!("home-{home}");
        if from != node {
            let lasts = Some(ms(chance.between(200, 8_000)));
            let (from, to) = (vec![Place::Node(from)], vec![Place::Node(node)]);
            plan.push((at, act(Action::Cut { from, to, lasts })));
        }
    }
    plan
}

fn hold(town: &Town, chance: &mut Chance) -> Plan {
    let nodes = ["relay".to_owned(), punchbag::topology::COORDINATOR.to_owned(), "home-1".to_owned()];
    let mut plan = Vec::new();
    for node in nodes {
        let (at, home) = (chance.at(), chance.between(0, town.homes() as u64 - 1));
        let from = format!("home-{home}");
        if from != node {
            plan.push((at, Do::Fault(Fault::Hold(from.clone(), node.clone()))));
            let until = at + ms(chance.between(200, 8_000));
            plan.push((until, Do::Fault(Fault::Release(from, node))));
        }
    }
    plan
}

fn restart(town: &Town, chance: &mut Chance) -> Plan {
    let mut plan = Vec::new();
    for keeps in [true, false] {
        let host = town.peer(chance.between(0, town.peers as u64 - 1) as usize);
        plan.push((chance.at(), act(Action::RestartHost { host, off: chance.off(), keeps })));
    }
    plan
}

fn everything(town: &Town, chance: &mut Chance) -> Plan {
    let kinds = [relay_crash, coordinator_crash, partition, hold, restart];
    let mut plan: Plan = kinds.iter().flat_map(|kind| kind(town, chance)).collect();
    let host = town.peer(chance.between(0, town.peers as u64 - 1) as usize);
    plan.push((chance.at(), act(Action::Crash { node: host, off: Some(chance.off()) })));
    let router = format!("home-{}", chance.between(0, town.homes() as u64 - 1));
    plan.push((chance.at(), act(Action::RebootRouter { router, off: chance.off() })));
    plan
}

/// When the last of it is over.
fn over(plan: &Plan) -> Duration {
    let lasts = |act: &Do| match act {
        Do::Act(action) => match **action {
            Action::Crash { off: Some(off), .. }
            | Action::RestartHost { off, .. }
            | Action::RebootRouter { off, .. }
            | Action::Cut { lasts: Some(off), .. } => off,
            _ => Duration::ZERO,
        },
        Do::Fault(_) => Duration::ZERO,
    };
    plan.iter().map(|(at, act)| *at + lasts(act)).max().unwrap_or_default()
}

/// Plays one seed; says what is wrong.
fn check(name: &str, town: &Town, plan: MakePlan, seed: u64) -> Result<(), String> {
    let errors = errors::watch();
    let scenario = scenario(&town.text());
    let topology = Topology::new(&scenario).map_err(|error| error.to_string())?;
    let timers = std::env::var_os("PUNCHBAG_LOGS").is_some();
    let options = Options { timers, disk: DISK, ..Options::default() };
    let failed = |error: &dyn std::error::Error| error.to_string();
    let mut bench =
        Bench::new(&scenario, &topology, Seed(seed), options, TICK).map_err(|error| failed(&error))?;
    let mut plan = plan(town, &mut Chance(Seed(seed).pcg("faults")));
    plan.sort_by_key(|(at, _)| *at);
    let over = over(&plan);
    let renewed = renewed(&plan);
    let (mut known, mut queued) = (BTreeMap::new(), [0; 2]);
    for (at, act) in plan {
        run_until(&mut bench, at, &mut queued)?;
        if at < WARM {
            known = BTreeMap::new();
        } else if known.is_empty() {
            known = records(&bench);
        }
        match act {
            Do::Act(action) => bench.now(*action),
            Do::Fault(fault) => bench.fault(&fault),
        }
        .map_err(|error| failed(&error))?;
    }
    let end = over + BOUND + ALIVE;
    run_until(&mut bench, end, &mut queued)?;
    let mut wrong = Vec::new();

    // Everybody talks.
    let since = u64::try_from((over + BOUND).as_nanos()).unwrap_or(u64::MAX);
    let answered = bench.events(|events| {
        let mut answered = BTreeSet::new();
        for record in events.iter().filter(|record| record.t >= since) {
            if let Event::Echo { flow, .. } = &record.event {
                answered.insert(flow.to_string());
            }
        }
        answered
    });
    for flow in &scenario.traffic {
        let name = format!("ping {} {}", flow.from, flow.to);
        if !answered.contains(&name) {
            wrong.push(format!("{name}: no answer after {:?}", over + BOUND));
        }
    }
    // What a machine was told of itself was on the disk before: it is told the same for as long as it has its keys.
    let mut told: BTreeMap<(String, usize), BTreeSet<String>> = BTreeMap::new();
    bench.events(|events| {
        for record in events {
            if let Event::Registered { host, tunnel, .. } = &record.event {
                let at = Duration::from_nanos(record.t);
                let lives = renewed.iter().filter(|(name, since)| **name == **host && *since <= at).count();
                told.entry((host.to_string(), lives)).or_default().insert(tunnel.to_string());
            }
        }
    });
    for ((host, _), addresses) in told.iter().filter(|(_, addresses)| addresses.len() > 1) {
        wrong.push(format!("{host} was told several addresses: {addresses:?}"));
    }
    // No queue of a server has grown.
    for ((server, queued), most) in ["relay", "coordinator"].iter().zip(queued).zip(MOST_QUEUED) {
        if queued > most {
            wrong.push(format!("{server} had {queued} bytes waiting for one client"));
        }
    }
    // Nothing was found to be wrong, and nobody wrote what there was no room for.
    bench.events(|events| {
        for record in events {
            match &record.event {
                Event::Violation { invariant, detail } => wrong.push(format!("{invariant}: {detail}")),
                Event::Warning { what, .. } if what.contains("bytes more than") => wrong.push(what.clone()),
                _ => {}
            }
        }
    });
    // No shell outlives its machine or program, and none has ended.
    let peers = (0..town.peers).map(|peer| town.peer(peer));
    let servers = ["relay".to_owned(), punchbag::topology::COORDINATOR.to_owned()];
    for node in peers.chain(servers) {
        let shells = bench.shells(&node);
        if shells != 1 {
            wrong.push(format!("{node} has {shells} shells"));
        }
        if bench.tasks(&node) != 1 {
            wrong.push(format!("the runtime of {node} has {} tasks beside its own", bench.tasks(&node)));
        }
        let queued = bench.most_queued(&node);
        // A fraction of what they may hold; the bytes are at most what a burst of map updates or relayed packets makes.
        if queued[0] > 256 || queued[1] > 64 || queued[2] > 128 * 1024 {
            wrong.push(format!("{node} had {queued:?} datagrams, connections and bytes queued"));
        }
    }
    // Whoever was known is known still, with the same address.
    let now = records(&bench);
    for (key, address) in &known {
        if now.get(key) != Some(address) {
            wrong.push(format!("the coordination server has {:?} in place of {address:?}", now.get(key)));
        }
    }
    if now.len() < town.peers {
        wrong.push(format!("the coordination server knows {} machines of {}", now.len(), town.peers));
    }
    wrong.extend(errors.found().into_iter().map(|error| format!("logged as an error: {error}")));
    if wrong.is_empty() {
        return Ok(());
    }
    if let Some(folder) = std::env::var_os("PUNCHBAG_LOGS") {
        let file = std::path::Path::new(&folder).join(format!("{}-{}-{seed}.jsonl", name, town.peers));
        let mut out = std::io::BufWriter::new(std::fs::File::create(file).expect("a file in PUNCHBAG_LOGS"));
        for record in &bench.finish().records {
            trace::write_record(&mut out, record).expect("space");
        }
    }
    Err(format!("seed {seed}: {}", wrong.join("; ")))
}

/// Who is to have lost their keys, and since when.
fn renewed(plan: &Plan) -> Vec<(String, Duration)> {
    let lost = |(at, act): &(Duration, Do)| match act {
        Do::Act(action) => match &**action {
            Action::RestartHost { host, keeps: false, .. } => Some((host.clone(), *at)),
            _ => None,
        },
        Do::Fault(_) => None,
    };
    plan.iter().filter_map(lost).collect()
}

/// Goes on, and looks now and then at what waits inside of the relay and of the coordination server.
fn run_until(bench: &mut Bench, until: Duration, queued: &mut [usize; 2]) -> Result<(), String> {
    loop {
        let next = (bench.elapsed() + 10 * TICK).min(until);
        bench.run_until(next).map_err(|error| error.to_string())?;
        let relay = bench.look("relay", |program: &RelayProgram| program.server().most_queued());
        let coordinator = |program: &CoordinatorProgram| program.server().most_queued();
        let coordinator = bench.look(punchbag::topology::COORDINATOR, coordinator);
        for (most, now) in queued.iter_mut().zip([relay, coordinator]) {
            *most = (*most).max(now.unwrap_or(0));
        }
        if next == until {
            return Ok(());
        }
    }
}

/// Who is known to the coordination server: node keys and addresses.
fn records(bench: &Bench) -> BTreeMap<[u8; 32], std::net::IpAddr> {
    let nodes = |program: &CoordinatorProgram| {
        program.server().nodes().map(|node| (node.node_key, node.tunnel_ip)).collect()
    };
    bench.look(punchbag::topology::COORDINATOR, nodes).unwrap_or_default()
}

/// Seeds of each test: a few, unless the environment asks for others.
fn seeds(few: u64) -> Vec<u64> {
    let Ok(asked) = std::env::var("PUNCHBAG_SEEDS") else { return (1..=few).collect() };
    let (from, to) = asked.split_once('-').unwrap_or(("1", &asked));
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("PUNCHBAG_SEEDS={asked}: N or A-B"));
    let (from, to): (u64, u64) = (number(from), number(to));
    (from..=to).collect()
}

fn converges(name: &str, plan: MakePlan) {
    let asked = std::env::var("PUNCHBAG_PEERS").ok();
    let mut wrong = Vec::new();
    for (peers, few) in [(2, 2), (20, 1)] {
        if asked.as_ref().is_some_and(|asked| *asked != peers.to_string()) {
            continue;
        }
        let (town, seeds) = (Town { peers }, seeds(few));
        let results =
            campaign::in_parallel(&seeds, jobs(), |seed| check(name, &town, plan, *seed), |_, _| {});
        let failed: Vec<_> = results.into_iter().filter_map(Result::err).collect();
        if seeds.len() > 10 {
            // Past the harness, which keeps what is printed to itself: these runs take minutes.
            let line = format!("{name}: {peers} peers, {} seeds, {} failed\n", seeds.len(), failed.len());
            std::io::stderr().write_all(line.as_bytes()).expect("standard error");
        }
        wrong.extend(failed.into_iter().map(|error| format!("{peers} peers, {error}")));
    }
    assert!(wrong.is_empty(), "{} runs:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_relay_that_crashes_and_comes_back_is_found_again() {
    converges("relay_crash", relay_crash);
}

#[test]
fn a_coordination_server_that_crashes_while_peers_register_and_while_a_newcomer_is_told_loses_nobody() {
    converges("coordinator_crash", coordinator_crash);
}

#[test]
fn a_partition_is_overcome_once_it_is_repaired() {
    converges("partition", partition);
}

#[test]
fn what_was_held_and_comes_all_at_once_harms_nobody() {
    converges("hold", hold);
}

#[test]
fn a_peer_that_was_killed_comes_back_with_its_keys_and_without() {
    converges("restart", restart);
}

#[test]
fn everything_at_once_is_survived() {
    converges("everything", everything);
}

//! What happens when: the entries of `[[at]]`.

use std::net::IpAddr;
use std::time::Duration;

use link::{Aqm, Jitter, Late, Loss};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{DelaySteps, Firewall, Link, Nat, Outages};
use crate::scenario::filter::Filter;
use crate::scenario::links::{Delay, FileName, Mtu, Pmtud};
use crate::scenario::model::When;
use crate::scenario::value::{Both, Jump, Queue, Rate, Ratio, State, Sugar, Val, Word};

/// Something that happens at a time, and perhaps again: exactly one of the keys beside `time`, `every`, `times` and `until`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::scenario) struct At {
    /// When, since the start of the run: "15s", or "5s..20s" for a time that the seed of each run draws.
    pub(in crate::scenario) time: Val<When>,
    /// It happens again and again, so long after the time before; a range is drawn anew each time.
    pub(in crate::scenario) every: Option<Val<When>>,
    /// With every: how often it happens in all. Default: until the run is over.
    pub(in crate::scenario) times: Option<Val<u64>>,
    /// With every: it does not happen later than this. Default: the end of the run.
    pub(in crate::scenario) until: Option<Val<Duration>>,
    /// A router loses its state and passes nothing for a while.
    pub(in crate::scenario) reboot: Option<Reboot>,
    /// A router forgets its bindings and goes on.
    pub(in crate::scenario) flush: Option<Flush>,
    /// A relay, the coordination server or a host's peer stops and starts again.
    pub(in crate::scenario) restart: Option<Restart>,
    /// A relay tells its clients that it is ill, or well again.
    pub(in crate::scenario) health: Option<Health>,
    /// The cable of a node changes; what is not named stays as the entries before left it.
    pub(in crate::scenario) link: Option<LinkChange>,
    /// The cable of this node is cut.
    pub(in crate::scenario) down: Option<Val<String>>,
    /// The cable of this node is mended.
    pub(in crate::scenario) up: Option<Val<String>>,
    /// A router gets another firewall.
    pub(in crate::scenario) firewall: Option<FirewallChange>,
    /// Rules are added to a router's firewall, which forgets nothing.
    pub(in crate::scenario) add_rule: Option<RuleChange>,
    /// Rules are taken from a router's firewall, which forgets nothing: what they let out goes on.
    pub(in crate::scenario) remove_rule: Option<RuleChange>,
    /// The user accepts the terms of a captive portal.
    pub(in crate::scenario) accept_portal: Option<AcceptPortal>,
    /// A router's translation changes.
    pub(in crate::scenario) nat: Option<NatChange>,
    /// A router gets another address on its uplink.
    pub(in crate::scenario) readdress: Option<Readdress>,
    /// A host moves to another network.
    #[serde(rename = "move")]
    pub(in crate::scenario) moves: Option<Move>,
    /// An interface of a host goes away or comes back.
    pub(in crate::scenario) interface: Option<InterfaceChange>,
    /// A host sleeps and wakes.
    pub(in crate::scenario) sleep: Option<Sleep>,
    /// A host's wall clock jumps.
    pub(in crate::scenario) clock: Option<ClockJump>,
    /// The programs of this host or server are killed and do not come back; its kernel closes their connections.
    pub(in crate::scenario) kill: Option<Val<String>>,
    /// An administrator revokes this host: the coordination server sends it away, and the others forget it.
    pub(in crate::scenario) revoke: Option<Val<String>>,
    /// An administrator lets this host in, which waits for that.
    pub(in crate::scenario) approve: Option<Val<String>>,
    /// The peer of this host takes another node key.
    pub(in crate::scenario) rotate: Option<Val<String>>,
    /// An administrator sets who may talk to whom; what no rule permits is forbidden from then on. Without this key everybody may
    /// talk to everybody.
    pub(in crate::scenario) access: Option<Vec<AccessRule>>,
    /// A host or server loses power.
    pub(in crate::scenario) crash: Option<Crash>,
    /// No packet reaches or leaves a host or server, though it runs on and its connections stay.
    pub(in crate::scenario) black_hole: Option<BlackHole>,
    /// A host or server is slow, or has more to do than it can.
    pub(in crate::scenario) slow: Option<Slow>,
    /// Parts of the internet do not reach each other.
    pub(in crate::scenario) cut: Option<Cut>,
}

/// Who may begin what with whom. Answers pass without a rule.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::scenario) struct AccessRule {
    /// Who may begin: names of hosts, or "*" for all.
    pub(in crate::scenario) from: Vec<Val<String>>,
    /// Whom they may reach.
    pub(in crate::scenario) to: Vec<Val<String>>,
    /// "any", "tcp", "udp" or "icmp". Default: "any".
    pub(in crate::scenario) protocol: Option<Val<String>>,
    /// At which ports of theirs, such as "443" or "8000-8080". Default: all.
    pub(in crate::scenario) ports: Option<Vec<Val<String>>>,
}

/// The user accepts the terms of a captive portal, for everybody behind it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::scenario) struct AcceptPortal {
    /// The router that has it.
    pub(in crate::scenario) router: Val<String>,
}

/// A router loses its state and passes nothing for a while.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::scenario) struct Reboot {
    /// Which.
    pub(in crate::scenario) router: Val<String>,
    /// For how long. Default: 20s.
    pub(in crate::scenario) off: Option<Val<Duration>>,
}

/// A router forgets its bindings and goes on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::scenario) struct Flush {
    /// Which.
    pub(in crate::scenario) router: Val<String>,
}

/// A relay, the coordination server or a host's peer stops and starts again.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::scenario) struct Restart {
    /// Which relay.
    pub(in crate::scenario) relay: Option<Val<String>>,
    /// The coordination server instead.
    pub(in crate::scenario) coordinator: Option<Val<bool>>,
    /// The peer of this host instead.
    pub(in crate::scenario) host: Option<Val<String>>,
    /// For how long. Default: 2s.
    pub(in crate::scenario) off: Option<Val<Duration>>,
    /// Whether the relay is asked to end in place of being killed: it announces that, serves on for a moment, closes its
    /// connections and is then off. Default: false.
    pub(in crate::scenario) drain: Option<Val<bool>>,
    /// Whether the coordination server still has its records, or the peer its identity, afterwards. Default: kept.
    pub(in crate::scenario) state: Option<Val<Word<State>>>,
}

/// A relay tells its clients that it is ill, or well again. It serves them all the same.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::scenario) struct Health {
    /// Which.
    pub(in crate::scenario) relay: Val<String>,
    /// What is wrong with it, such as "disk full"; "" when it is well again.
    pub(in crate::scenario) says: Val<String>,
}

/// The cable of a node changes; what is not named stays.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::scenario) struct LinkChange {
    /// Host, router, relay, STUN server, or "coordinator".
    pub(in crate::scenario) node: Val<String>,
    /// Start from this preset instead of the cable as it is.
    pub(in crate::scenario) preset: Option<Val<String>>,
    /// Rate towards the node, or "unlimited".
    pub(in crate::scenario) down: Option<Val<Rate>>,
    /// Rate away from the node, or "unlimited".
    pub(in crate::scenario) up: Option<Val<Rate>>,
    /// A file beside the scenario with the chances to send 1500 bytes, in mahimahi's format, in place of a rate; or "none".
    pub(in crate::scenario) trace: Option<Both<FileName>>,
    /// One-way delay; or measured, as quantiles: "10% 20ms, 50% 35ms, 90% 80ms".
    pub(in crate::scenario) delay: Option<Both<Delay>>,
    /// How far the delay varies: to either side ("5ms"), or the standard deviation of "normal 5ms" or "pareto 5ms".
    pub(in crate::scenario) jitter: Option<Both<Jitter>>,
    /// A file beside the scenario with the delay as it changes (lines of MILLISECONDS,DELAY), in place of `delay`; or "none".
    pub(in crate::scenario) delay_trace: Option<Both<FileName>>,
    /// Changes of the delay at fixed times: a route that flaps, satellites that take over; or "none".
    pub(in crate::scenario) delay_steps: Option<Sugar<DelaySteps>>,
    /// Bytes that wait at most, or "unlimited"; what does not fit is dropped. With a new rate: 100 ms of it.
    pub(in crate::scenario) queue: Option<Both<Queue>>,
    /// How the queue is managed: "drop-tail", "codel" (RFC 8289), "fq-codel" (RFC 8290) or "red min 30kB max 90kB", each with
    /// its settings after it. Default: drop-tail.
    pub(in crate::scenario) aqm: Option<Both<Aqm>>,
    /// Packets lost: at random ("1%"), "gilbert-elliott p 1% r 10% h 30% k 99.9%", "burst 5 every 200", or "every 50".
    pub(in crate::scenario) loss: Option<Both<Loss>>,
    /// Whether a packet with little jitter may overtake one with much.
    pub(in crate::scenario) reorder: Option<Both<bool>>,
    /// Share of packets held back, so that later ones overtake them: "1% by 20ms", or "none".
    pub(in crate::scenario) late: Option<Both<Late>>,
    /// Share of packets that arrive twice.
    pub(in crate::scenario) duplicate: Option<Both<Ratio>>,
    /// Share of packets damaged on the way; their checksums show it, and they are dropped.
    pub(in crate::scenario) corrupt: Option<Both<Ratio>>,
    /// The largest IP packet in bytes, or "unlimited". No packet may be fragmented but those of hosts with `dont-fragment = false`.
    pub(in crate::scenario) mtu: Option<Both<Mtu>>,
    /// Whether the sender of a larger one is told by ICMP (RFC 1191) or not: "icmp", the default, or "silent".
    pub(in crate::scenario) pmtud: Option<Both<Word<Pmtud>>>,
    /// Times at which nothing passes; or "none".
    pub(in crate::scenario) outages: Option<Sugar<Outages>>,
}

impl LinkChange {
    /// The node, and the change as a cable description.
    pub(in crate::scenario) fn into_parts(self) -> (Val<String>, Link) {
        let LinkChange {
            node,
            preset,
            down,
            up,
            trace,
            delay,
            jitter,
            delay_trace,
            delay_steps,
            queue,
            aqm,
            loss,
            reorder,
            late,
            duplicate,
            corrupt,
            mtu,
            pmtud,
            outages,
        } = self;
        let link = Link {
            preset,
            down,
            up,
            trace,
            delay,
            jitter,
            delay_trace,
            delay_steps,
            queue,
            aqm,
            loss,
            reorder,
            late,
            duplicate,
            corrupt,
            mtu,
            pmtud,
            outages,
        };
        (node, link)
    }
}

/// A router gets another firewall.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::scenario) struct FirewallChange {
    /// Which.
    pub(in crate::scenario) router: Val<String>,
    /// A preset, rules, or "none".
    pub(in crate::scenario) rules: Sugar<Firewall>,
}

/// Rules of a router's firewall that come or go.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::scenario) struct RuleChange {
    /// Which router's. One without a firewall gets one that lets everything else pass.
    pub(in crate::scenario) router: Val<String>,
    /// Rules of what may go out, as in its `firewall`. They are about new conversations.
    pub(in crate::scenario) outbound: Option<Vec<Val<Filter>>>,
    /// Rules of what passes neither out nor in, as in its `firewall`. They are about every packet.
    pub(in crate::scenario) block: Option<Vec<Val<Filter>>>,
}

/// A router's translation changes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::scenario) struct NatChange {
    /// Which.
    pub(in crate::scenario) router: Val<String>,
    /// A preset or axes.
    pub(in crate::scenario) to: Sugar<Nat>,
    /// Whether it still knows its bindings afterwards. Default: lost.
    pub(in crate::scenario) state: Option<Val<Word<State>>>,
}

/// A router gets another address on its uplink, and forgets its bindings, as after a nightly reconnection.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::scenario) struct Readdress {
    /// Which; it must translate.
    pub(in crate::scenario) router: Val<String>,
    /// Its new address. Default: the next free one.
    pub(in crate::scenario) address: Option<Val<IpAddr>>,
    /// For how long nothing passes. Default: 0s.
    pub(in crate::scenario) off: Option<Val<Duration>>,
}

/// A host leaves its network, is unreachable for a while, and comes up in another with a new address.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::scenario) struct Move {
    /// Which.
    pub(in crate::scenario) host: Val<String>,
    /// Which of its interfaces. Default: that of the host's own section.
    pub(in crate::scenario) interface: Option<Val<String>>,
    /// The router that it is behind afterwards, or the region where it is on the internet.
    pub(in crate::scenario) to: Val<String>,
    /// Its address there. Default: the next free one; the same whenever it comes back.
    pub(in crate::scenario) address: Option<Val<IpAddr>>,
    /// Its cable there. Default: as it was at the start.
    pub(in crate::scenario) link: Option<Sugar<Link>>,
    /// For how long it is nowhere. Default: 2s.
    pub(in crate::scenario) dead: Option<Val<Duration>>,
}

/// An interface of a host goes away with its address, or comes back with it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::scenario) struct InterfaceChange {
    /// Whose.
    pub(in crate::scenario) host: Val<String>,
    /// Which. Default: that of the host's own section.
    pub(in crate::scenario) name: Option<Val<String>>,
    /// Whether it is there from now on.
    pub(in crate::scenario) up: Val<bool>,
}

/// A host sleeps: what is sent to it is lost, and all that it should have done meanwhile it does when it wakes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::scenario) struct Sleep {
    /// Which.
    pub(in crate::scenario) host: Val<String>,
    /// For how long.
    #[serde(rename = "for")]
    pub(in crate::scenario) lasts: Val<Duration>,
}

/// A host's wall clock jumps; what measures durations is not affected.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::scenario) struct ClockJump {
    /// Whose.
    pub(in crate::scenario) host: Val<String>,
    /// How far, forwards "+1h" or back "-1h".
    pub(in crate::scenario) by: Val<Jump>,
}

/// A host or server loses power: it forgets its connections without telling anyone.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::scenario) struct Crash {
    /// Host, relay, STUN server, or "coordinator".
    pub(in crate::scenario) node: Val<String>,
    /// For how long; what it has on disk is kept. Default: for good.
    pub(in crate::scenario) off: Option<Val<Duration>>,
}

/// No packet reaches or leaves a host or server, though it runs on and its connections stay.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::scenario) struct BlackHole {
    /// Host, relay, STUN server, or "coordinator".
    pub(in crate::scenario) node: Val<String>,
    /// For how long. Default: for good.
    #[serde(rename = "for")]
    pub(in crate::scenario) lasts: Option<Val<Duration>>,
}

/// A host or server is slow, or has more to do than it can.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::scenario) struct Slow {
    /// Host, relay, STUN server, or "coordinator".
    pub(in crate::scenario) node: Val<String>,
    /// What every packet that arrives waits. Default: 0s.
    pub(in crate::scenario) delay: Option<Val<Duration>>,
    /// What it then takes to handle one, while the next wait their turn. Default: 0s.
    pub(in crate::scenario) each: Option<Val<Duration>>,
    /// Most packets that wait; what comes then is lost. Default: 1000.
    pub(in crate::scenario) queue: Option<Val<u64>>,
    /// For how long. Default: for good.
    #[serde(rename = "for")]
    pub(in crate::scenario) lasts: Option<Val<Duration>>,
}

/// Parts of the internet do not reach each other: one region and all the rest, or two groups.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::scenario) struct Cut {
    /// A region that is cut off from all others.
    pub(in crate::scenario) region: Option<Val<String>>,
    /// Regions and nodes of one side. A node stands for all that is behind the same outermost router.
    pub(in crate::scenario) from: Option<Vec<Val<String>>>,
    /// Regions and nodes of the other side. Default: everything else.
    pub(in crate::scenario) to: Option<Vec<Val<String>>>,
    /// For how long. Default: for good.
    #[serde(rename = "for")]
    pub(in crate::scenario) lasts: Option<Val<Duration>>,
}

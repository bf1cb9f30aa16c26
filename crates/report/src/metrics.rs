//! What a log says in numbers: a pure fold over its events.
//!
//! Integers only: nanoseconds, bits per second, bytes, parts per million. The same log gives the same [`Metrics`].

use crate::fold::Fold;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use trace::{FlowKind, Name, Path, Record};

/// A packet sent later than this before the end of the log, and not received, is in flight rather than lost: ns.
/// One second is three times the longest one-way delay between two regions plus a deep queue.
pub const IN_FLIGHT_NS: u64 = 1_000_000_000;

/// A silence of a ping or voice flow shorter than this is jitter and not listed as a [`Gap`]: ns.
/// 100 ms is five packets of a 20 ms voice codec, the point where concealment ends and a listener notices.
pub const GAP_MIN_NS: u64 = 100_000_000;

/// The same for a bulk transfer, whose receipts come in bursts of a round trip: ns.
pub const BULK_GAP_MIN_NS: u64 = 500_000_000;

/// A lost packet sent this close to a change of path, before or after it, counts as lost by the change: ns.
pub const SWITCH_WINDOW_NS: u64 = 500_000_000;

/// One value for each way a packet can travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PerPath<T> {
    /// Over a relay.
    pub relay: T,
    /// Peer to peer, through the internet.
    pub direct: T,
    /// Peer to peer, inside one LAN.
    pub lan: T,
}

impl<T> PerPath<T> {
    /// The value for a path.
    pub fn get(&self, path: Path) -> &T {
        match path {
            Path::Relay => &self.relay,
            Path::Direct => &self.direct,
            Path::Lan => &self.lan,
        }
    }

    /// The value for a path, to be changed.
    pub fn get_mut(&mut self, path: Path) -> &mut T {
        match path {
            Path::Relay => &mut self.relay,
            Path::Direct => &mut self.direct,
            Path::Lan => &mut self.lan,
        }
    }

    /// Each path with its value: relay, direct, lan.
    pub fn iter(&self) -> impl Iterator<Item = (Path, &T)> {
        [Path::Relay, Path::Direct, Path::Lan].into_iter().map(|path| (path, self.get(path)))
    }
}

/// What a pair's traffic met on one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PathMetrics {
    /// Packets sent (ping and voice, both ways) while the sender used this path.
    pub sent: u64,
    /// Packets received by this path. More than `sent - lost` when a packet left under one path and came by another.
    pub received: u64,
    /// Of the packets sent, those that never arrived; packets still in flight at the end ([`IN_FLIGHT_NS`]) do not count.
    pub lost: u64,
    /// `lost` of `sent`, in millionths; `None` if nothing was sent.
    pub loss_ppm: Option<u64>,
    /// Pings whose request and reply both took this path; one by LAN and one direct count as direct.
    pub echoes: u64,
    /// Smallest round trip of those, ns.
    pub rtt_min_ns: Option<u64>,
    /// Median round trip, ns.
    pub rtt_p50_ns: Option<u64>,
    /// 90th percentile of the round trips, ns.
    pub rtt_p90_ns: Option<u64>,
    /// Median one-way latency of the packets received, ns.
    pub latency_p50_ns: Option<u64>,
    /// 90th percentile of the one-way latencies, ns.
    pub latency_p90_ns: Option<u64>,
    /// Bytes of bulk transfers read between two receipts on this path.
    pub bulk_bytes: u64,
    /// Time between those receipts, ns.
    pub bulk_ns: u64,
    /// `bulk_bytes` over `bulk_ns`, bits per second. Opening the transfer and changing paths are outside it.
    pub goodput_bps: Option<u64>,
}

/// A silence in traffic that was being sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The flow.
    pub flow: Name,
    /// The host that heard nothing.
    pub host: Name,
    /// When it last heard something, ns.
    pub since_ns: u64,
    /// When the next packet should have arrived: its sending time plus the latency of the one before it, ns.
    pub from_ns: u64,
    /// When one did arrive; the end of the flow or of the log if none did, ns.
    pub to_ns: u64,
    /// Did traffic resume?
    pub resumed: bool,
}

impl Gap {
    /// How long, ns.
    pub fn length_ns(&self) -> u64 {
        self.to_ns.saturating_sub(self.from_ns)
    }
}

/// How a pair's traffic took something from the timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// When it happened, ns.
    pub at_ns: u64,
    /// What happened, in the scenario's words.
    pub what: String,
    /// The longest silence between this and the next action, from when a packet should have arrived to when one did,
    /// ns; 0 if there was none worth listing, `None` if traffic stopped and did not resume.
    pub recovery_ns: Option<u64>,
    /// The same silence from the last packet received before it to the next one received, ns.
    pub silence_ns: Option<u64>,
}

/// A change of the path by which one host sends to its peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// The sender.
    pub host: Name,
    /// When, ns.
    pub at_ns: u64,
    /// The path before.
    pub from: Option<Path>,
    /// The path after.
    pub to: Option<Path>,
    /// Packets of this host sent within [`SWITCH_WINDOW_NS`] of the change that never arrived.
    pub lost: u64,
}

/// One traffic flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowMetrics {
    /// Its name.
    pub name: Name,
    /// Its kind.
    pub kind: FlowKind,
    /// The side that started it.
    pub from: Name,
    /// The other side.
    pub to: Name,
    /// When it started, ns.
    pub start_ns: u64,
    /// When it ended, ns; `None` if it was running at the end of the log.
    pub end_ns: Option<u64>,
    /// Did it finish what it set out to do? `None` while running.
    pub complete: Option<bool>,
    /// Why not, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Bytes of a bulk transfer read in order, over all paths and both directions.
    pub bulk_bytes: u64,
    /// Those bytes over the time from the start of the flow to the last of them, bits per second.
    pub goodput_bps: Option<u64>,
}

/// Two hosts that exchange traffic. `a` sorts before `b`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairMetrics {
    /// One host.
    pub a: Name,
    /// The other.
    pub b: Name,
    /// The path on which `a` sends to `b` at the end.
    pub path_a: Option<Path>,
    /// The path on which `b` sends to `a` at the end.
    pub path_b: Option<Path>,
    /// When the pair's first packet was sent into the tunnel, or its first bulk transfer started, ns.
    pub started_ns: u64,
    /// From there to the first packet or byte received by either, ns.
    pub first_data_ns: Option<u64>,
    /// From there to the first moment when both sides send on a path that is not a relay, ns; 0 if they did before.
    pub direct_ns: Option<u64>,
    /// Figures of each path that was used.
    pub paths: PerPath<PathMetrics>,
    /// Packets sent while the sender had no path.
    pub pathless_sent: u64,
    /// Of those, packets that never arrived.
    pub pathless_lost: u64,
    /// Packets that a program received more than once.
    pub duplicates: u64,
    /// The longest silence, ns, listed or not.
    pub longest_gap_ns: u64,
    /// Silences, in order of time. See [`GAP_MIN_NS`] and [`BULK_GAP_MIN_NS`].
    pub gaps: Vec<Gap>,
    /// For each action of the timeline with traffic after it.
    pub recoveries: Vec<Recovery>,
    /// Changes of path, in order of time.
    pub switches: Vec<Switch>,
    /// The flows between the two, in order of their start.
    pub flows: Vec<FlowMetrics>,
}

impl PairMetrics {
    /// The path of the pair as a whole at the end: `None` if either side has none, relay if the two differ.
    pub fn path(&self) -> Option<Path> {
        joint(self.path_a, self.path_b)
    }

    /// Loss over all paths, in millionths; `None` if nothing was sent.
    pub fn loss_ppm(&self) -> Option<u64> {
        let (sent, lost) =
            self.paths.iter().fold((self.pathless_sent, self.pathless_lost), |sum, (_, path)| {
                (sum.0.saturating_add(path.sent), sum.1.saturating_add(path.lost))
            });
        ratio_ppm(lost, sent)
    }

    /// The longest recovery over all actions; `None` if there was no action, `Some(None)` if traffic never resumed.
    pub fn longest_recovery_ns(&self) -> Option<Option<u64>> {
        let all = self.recoveries.iter().map(|recovery| recovery.recovery_ns);
        all.max_by_key(|ns| ns.unwrap_or(u64::MAX))
    }
}

/// One host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HostMetrics {
    /// Its name.
    pub host: String,
    /// When the coordination server accepted it, ns.
    pub registered_ns: Option<u64>,
    /// The relay it is connected to at the end.
    pub relay: Option<Name>,
    /// The address and port of that connection.
    pub relay_address: Option<SocketAddr>,
    /// Does it believe that its mapping varies by destination? `None` = never could tell.
    pub mapping_varies: Option<bool>,
    /// Does it believe that UDP is blocked?
    pub udp_blocked: Option<bool>,
    /// The addresses it offers at the end.
    pub candidates: Vec<SocketAddr>,
    /// Connectivity checks sent.
    pub probes: u64,
    /// Packets put on its interface.
    pub packets_sent: u64,
    /// Bytes of those, IP headers included.
    pub bytes_sent: u64,
    /// Packets that reached its sockets.
    pub packets_received: u64,
}

/// One router, link or other place where packets end.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BoxMetrics {
    /// Its name.
    pub name: String,
    /// Packets dropped, by reason.
    pub dropped: BTreeMap<Name, u64>,
    /// Bindings created.
    pub bindings: u64,
}

/// A run in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Metrics {
    /// Virtual time of the last event, ns.
    pub end_ns: u64,
    /// Events the world processed, as it counted them.
    pub events: u64,
    /// Packets put on an interface, by anyone.
    pub packets: u64,
    /// Packets dropped, anywhere.
    pub dropped: u64,
    /// Hosts that the coordination server accepted.
    pub registered: u64,
    /// Pairs with traffic, sorted.
    pub pairs: Vec<PairMetrics>,
    /// Hosts, sorted.
    pub hosts: Vec<HostMetrics>,
    /// Boxes that dropped or bound something, sorted.
    pub boxes: Vec<BoxMetrics>,
    /// Violated invariants, "name: detail", in order of time.
    pub violations: Vec<String>,
    /// Errors that cores reported and handled.
    pub warnings: u64,
}

impl Metrics {
    /// Folds a whole log. For a log that is still growing use [`Fold`].
    pub fn fold(records: &[Record]) -> Metrics {
        let mut fold = Fold::default();
        for record in records {
            fold.push(record);
        }
        fold.finish()
    }

    /// The figures of two hosts, in either order.
    pub fn pair(&self, one: &str, other: &str) -> Option<&PairMetrics> {
        let (a, b) = if one <= other { (one, other) } else { (other, one) };
        self.pairs.iter().find(|pair| &*pair.a == a && &*pair.b == b)
    }
}

/// The path of two directions seen as one: a relay if either uses one. Of two that do not, one may see a LAN where the other,
/// behind one router more, does not: that is direct.
pub(crate) fn joint(one: Option<Path>, other: Option<Path>) -> Option<Path> {
    match (one?, other?) {
        (one, other) if one == other => Some(one),
        (Path::Relay, _) | (_, Path::Relay) => Some(Path::Relay),
        _ => Some(Path::Direct),
    }
}

/// `part` of `whole` in millionths, rounded down; `None` of nothing.
pub(crate) fn ratio_ppm(part: u64, whole: u64) -> Option<u64> {
    let ppm = (u128::from(part) * 1_000_000).checked_div(u128::from(whole))?;
    Some(u64::try_from(ppm).unwrap_or(u64::MAX))
}

/// Bits per second of `bytes` in `ns`; `None` if no time passed.
pub(crate) fn rate_bps(bytes: u64, ns: u64) -> Option<u64> {
    let bps = (u128::from(bytes) * 8 * 1_000_000_000).checked_div(u128::from(ns))?;
    Some(u64::try_from(bps).unwrap_or(u64::MAX))
}

/// Nearest-rank percentile of sorted values.
pub(crate) fn percentile(sorted: &[u64], percent: usize) -> Option<u64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

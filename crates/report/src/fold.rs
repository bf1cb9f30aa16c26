//! The fold behind [`Metrics`]: what has to be remembered while a log goes by.

use crate::metrics::joint;
use crate::metrics::{
    BULK_GAP_MIN_NS, BoxMetrics, FlowMetrics, GAP_MIN_NS, Gap, HostMetrics, IN_FLIGHT_NS, Metrics,
    PairMetrics, PathMetrics, PerPath, Recovery, SWITCH_WINDOW_NS, Switch, percentile, rate_bps, ratio_ppm,
};
use std::collections::BTreeMap;
use trace::{Event, FlowKind, Name, NodeKind, Path, Record, ServerState};

/// Packets that must be missing at the end of a flow before it counts as silenced: the last one or two may be plain loss.
const OPEN_GAP_PACKETS: usize = 3;

/// Folds a log one record at a time.
///
/// ```
/// # let records: [trace::Record; 0] = [];
/// let mut fold = report::Fold::default();
/// for record in &records {
///     fold.push(record);
/// }
/// let metrics = fold.finish();
/// assert_eq!(metrics.packets, 0);
/// ```
#[derive(Debug, Default)]
pub struct Fold {
    end_ns: u64,
    events: u64,
    packets: u64,
    dropped: u64,
    warnings: u64,
    violations: Vec<String>,
    actions: Vec<(u64, String)>,
    hosts: BTreeMap<Name, HostMetrics>,
    boxes: BTreeMap<Name, BoxMetrics>,
    /// The path by which the first sends to the second.
    routes: BTreeMap<(Name, Name), Option<Path>>,
    /// When both sides of a pair first had a path that is not a relay.
    direct_at: BTreeMap<(Name, Name), u64>,
    switches: BTreeMap<(Name, Name), Vec<Switch>>,
    pairs: BTreeMap<(Name, Name), Pair>,
    flows: BTreeMap<Name, Flow>,
}

#[derive(Debug, Default)]
struct Pair {
    announced_ns: u64,
    started_ns: Option<u64>,
    first_received_ns: Option<u64>,
    duplicates: u64,
    samples: PerPath<Samples>,
    /// In order of their start.
    flows: Vec<Name>,
}

#[derive(Debug, Default)]
struct Samples {
    received: u64,
    rtt_ns: Vec<u64>,
    latency_ns: Vec<u64>,
    bulk_bytes: u64,
    bulk_ns: u64,
}

#[derive(Debug)]
struct Flow {
    metrics: FlowMetrics,
    pair: (Name, Name),
    /// By sending host for packets, by receiving host for bulk.
    directions: BTreeMap<Name, Direction>,
}

#[derive(Debug, Default)]
struct Direction {
    sent: BTreeMap<u64, Packet>,
    last: Option<Receipt>,
    bulk: Option<Bulk>,
    gaps: Vec<Gap>,
    longest_gap_ns: u64,
}

#[derive(Debug)]
struct Packet {
    at_ns: u64,
    path: Option<Path>,
    received: bool,
}

/// The latest receipt of a direction: when, and the highest number so far with its latency.
#[derive(Debug)]
struct Receipt {
    at_ns: u64,
    seq: u64,
    latency_ns: u64,
}

#[derive(Debug)]
struct Bulk {
    at_ns: u64,
    total_bytes: u64,
    path: Path,
}

impl Fold {
    /// Takes the next record of the log.
    pub fn push(&mut self, record: &Record) {
        let t = record.t;
        self.end_ns = self.end_ns.max(t);
        match &record.event {
            Event::Sent { node, bytes, .. } => {
                self.packets += 1;
                if let Some(host) = self.hosts.get_mut(node) {
                    host.packets_sent += 1;
                    host.bytes_sent = host.bytes_sent.saturating_add(u64::from(*bytes));
                }
            }
            Event::Delivered { node, .. } => {
                if let Some(host) = self.hosts.get_mut(node) {
                    host.packets_received += 1;
                }
            }
            Event::Dropped { node, reason, .. } => {
                self.dropped += 1;
                *self.middlebox(node).dropped.entry(reason.clone()).or_default() += 1;
            }
            Event::Binding { node, .. } => self.middlebox(node).bindings += 1,
            Event::Action { what } => self.actions.push((t, what.clone())),
            Event::Warning { .. } => self.warnings += 1,
            Event::Violation { invariant, detail } => self.violations.push(format!("{invariant}: {detail}")),
            Event::End { events } => self.events = *events,
            Event::Node { .. }
            | Event::Registered { .. }
            | Event::Relay { .. }
            | Event::NatLearned { .. }
            | Event::Probe { .. } => self.push_host(t, &record.event),
            Event::PathChanged { host, peer, path, .. } => self.push_path(t, host, peer, *path),
            Event::FlowStart { .. }
            | Event::AppSent { .. }
            | Event::AppReceived { .. }
            | Event::Echo { .. }
            | Event::BulkReceived { .. }
            | Event::FlowEnd { .. } => self.push_flow(t, &record.event),
            Event::Presence { .. }
            | Event::Translated { .. }
            | Event::Unbound { .. }
            | Event::Timer { .. }
            | Event::Member { .. }
            | Event::KeyRotated { .. }
            | Event::Coordinator { .. }
            | Event::Reflexive { .. }
            | Event::Candidates { .. }
            | Event::Validated { .. }
            | Event::Gateway { .. }
            | Event::PortMapping { .. }
            | Event::Session { .. } => {}
        }
    }

    fn middlebox(&mut self, node: &Name) -> &mut BoxMetrics {
        let new = || BoxMetrics { name: node.to_string(), ..BoxMetrics::default() };
        self.boxes.entry(node.clone()).or_insert_with(new)
    }

    fn host(&mut self, host: &Name) -> &mut HostMetrics {
        let new = || HostMetrics { host: host.to_string(), ..HostMetrics::default() };
        self.hosts.entry(host.clone()).or_insert_with(new)
    }

    fn push_host(&mut self, t: u64, event: &Event) {
        match event {
            Event::Node { node, kind: NodeKind::Host, .. } => {
                self.host(node);
            }
            Event::Registered { host, .. } => {
                self.host(host).registered_ns.get_or_insert(t);
            }
            Event::Relay { host, relay, state, address, .. } => {
                let host = self.host(host);
                match state {
                    ServerState::Connected => {
                        host.relay = Some(relay.clone());
                        host.relay_address = Some(*address);
                    }
                    ServerState::Closed if host.relay.as_ref() == Some(relay) => {
                        host.relay = None;
                        host.relay_address = None;
                    }
                    ServerState::Connecting | ServerState::Failed | ServerState::Closed => {}
                }
            }
            Event::NatLearned { host, mapping_varies, udp_blocked, candidates } => {
                let host = self.host(host);
                host.mapping_varies = mapping_varies.or(host.mapping_varies);
                host.udp_blocked = Some(*udp_blocked);
                host.candidates.clone_from(candidates);
            }
            Event::Probe { host, .. } => self.host(host).probes += 1,
            _ => {}
        }
    }

    fn push_path(&mut self, t: u64, host: &Name, peer: &Name, path: Option<Path>) {
        let from = self.routes.insert((host.clone(), peer.clone()), path).flatten();
        let pair = pair_of(host, peer);
        let back = self.routes.get(&(peer.clone(), host.clone())).copied().flatten();
        if from != path {
            let switch = Switch { host: host.clone(), at_ns: t, from, to: path, lost: 0 };
            self.switches.entry(pair.clone()).or_default().push(switch);
        }
        let peer_to_peer = |path| matches!(path, Some(Path::Direct | Path::Lan));
        if peer_to_peer(path) && peer_to_peer(back) {
            self.direct_at.entry(pair).or_insert(t);
        }
    }

    fn push_flow(&mut self, t: u64, event: &Event) {
        let name = match event {
            Event::FlowStart { flow, kind, from, to } => {
                let pair = pair_of(from, to);
                if self.flows.contains_key(flow) {
                    return;
                }
                let new = || Pair { announced_ns: t, ..Pair::default() };
                let known = self.pairs.entry(pair.clone()).or_insert_with(new);
                known.flows.push(flow.clone());
                if *kind == FlowKind::Bulk {
                    known.started_ns.get_or_insert(t);
                }
                let metrics = FlowMetrics {
                    name: flow.clone(),
                    kind: *kind,
                    from: from.clone(),
                    to: to.clone(),
                    start_ns: t,
                    end_ns: None,
                    complete: None,
                    reason: String::new(),
                    bulk_bytes: 0,
                    goodput_bps: None,
                };
                let new = Flow { metrics, pair, directions: BTreeMap::new() };
                self.flows.insert(flow.clone(), new);
                return;
            }
            Event::AppSent { flow, .. }
            | Event::AppReceived { flow, .. }
            | Event::Echo { flow, .. }
            | Event::BulkReceived { flow, .. }
            | Event::FlowEnd { flow, .. } => flow,
            _ => return,
        };
        // A log whose flow was never started has nothing to attribute the event to.
        let Some(flow) = self.flows.get_mut(name) else { return };
        let Some(pair) = self.pairs.get_mut(&flow.pair) else { return };
        match event {
            Event::AppSent { host, seq, .. } => {
                pair.started_ns.get_or_insert(t);
                let peer = flow.other(host);
                let path = self.routes.get(&(host.clone(), peer)).copied().flatten();
                let packet = Packet { at_ns: t, path, received: false };
                flow.directions.entry(host.clone()).or_default().sent.entry(*seq).or_insert(packet);
            }
            Event::AppReceived { host, seq, latency_ns, path, .. } => {
                pair.first_received_ns.get_or_insert(t);
                let samples = pair.samples.get_mut(*path);
                let direction = flow.directions.entry(flow.other(host)).or_default();
                if direction.sent.get(seq).is_some_and(|packet| packet.received) {
                    pair.duplicates += 1;
                    return;
                }
                samples.received += 1;
                samples.latency_ns.push(*latency_ns);
                direction.receive(t, *seq, *latency_ns, name, host);
            }
            Event::Echo { rtt_ns, out, back, .. } if (*out == Path::Relay) == (*back == Path::Relay) => {
                if let Some(path) = joint(Some(*out), Some(*back)) {
                    pair.samples.get_mut(path).rtt_ns.push(*rtt_ns);
                }
            }
            Event::BulkReceived { host, total_bytes, path, .. } => {
                pair.first_received_ns.get_or_insert(t);
                let direction = flow.directions.entry(host.clone()).or_default();
                let before = direction.bulk.as_ref().map_or(0, |bulk| bulk.total_bytes);
                let bytes = total_bytes.saturating_sub(before);
                flow.metrics.bulk_bytes = flow.metrics.bulk_bytes.saturating_add(bytes);
                let ns = t.saturating_sub(flow.metrics.start_ns);
                flow.metrics.goodput_bps = rate_bps(flow.metrics.bulk_bytes, ns);
                if let Some((bytes, ns)) = direction.receive_bulk(t, *total_bytes, *path, name, host) {
                    let samples = pair.samples.get_mut(*path);
                    samples.bulk_bytes = samples.bulk_bytes.saturating_add(bytes);
                    samples.bulk_ns = samples.bulk_ns.saturating_add(ns);
                }
            }
            Event::FlowEnd { complete, reason, .. } => {
                flow.metrics.end_ns = Some(t);
                flow.metrics.complete = Some(*complete);
                flow.metrics.reason.clone_from(reason);
            }
            _ => {}
        }
    }

    /// The figures of the log so far. Nothing is consumed: more records may follow.
    pub fn finish(&self) -> Metrics {
        let registered = self.hosts.values().filter(|host| host.registered_ns.is_some()).count();
        Metrics {
            end_ns: self.end_ns,
            events: self.events,
            packets: self.packets,
            dropped: self.dropped,
            registered: registered as u64,
            pairs: self.pairs.iter().map(|(names, pair)| self.finish_pair(names, pair)).collect(),
            hosts: self.hosts.values().cloned().collect(),
            boxes: self.boxes.values().cloned().collect(),
            violations: self.violations.clone(),
            warnings: self.warnings,
        }
    }

    fn finish_pair(&self, names: &(Name, Name), pair: &Pair) -> PairMetrics {
        let (a, b) = names;
        let started_ns = pair.started_ns.unwrap_or(pair.announced_ns);
        let mut paths = PerPath::<PathMetrics>::default();
        for (path, samples) in pair.samples.iter() {
            *paths.get_mut(path) = samples.finish();
        }
        let flows: Vec<&Flow> = pair.flows.iter().filter_map(|flow| self.flows.get(flow)).collect();
        let (mut pathless_sent, mut pathless_lost) = (0, 0);
        let mut switches = self.switches.get(names).cloned().unwrap_or_default();
        let mut gaps = Vec::new();
        let mut longest_gap_ns = 0;
        for flow in &flows {
            let end_ns = flow.metrics.end_ns.unwrap_or(self.end_ns);
            for (host, direction) in &flow.directions {
                for packet in direction.sent.values() {
                    let lost = !packet.received && packet.at_ns.saturating_add(IN_FLIGHT_NS) <= self.end_ns;
                    let (sent_by, lost_by) = match packet.path {
                        Some(path) => {
                            let figures = paths.get_mut(path);
                            (&mut figures.sent, &mut figures.lost)
                        }
                        None => (&mut pathless_sent, &mut pathless_lost),
                    };
                    *sent_by += 1;
                    if lost {
                        *lost_by += 1;
                        for switch in switches.iter_mut().filter(|switch| &switch.host == host) {
                            if switch.at_ns.abs_diff(packet.at_ns) <= SWITCH_WINDOW_NS {
                                switch.lost += 1;
                            }
                        }
                    }
                }
                gaps.extend(direction.gaps.iter().cloned());
                longest_gap_ns = longest_gap_ns.max(direction.longest_gap_ns);
                if let Some(gap) = direction.open_gap(flow, host, end_ns) {
                    longest_gap_ns = longest_gap_ns.max(gap.length_ns());
                    gaps.push(gap);
                }
            }
        }
        gaps.sort_by(|one, other| {
            (one.from_ns, one.to_ns, &one.flow, &one.host).cmp(&(
                other.from_ns,
                other.to_ns,
                &other.flow,
                &other.host,
            ))
        });
        for path in [Path::Relay, Path::Direct, Path::Lan] {
            let figures = paths.get_mut(path);
            figures.loss_ppm = ratio_ppm(figures.lost, figures.sent);
        }
        PairMetrics {
            a: a.clone(),
            b: b.clone(),
            path_a: self.routes.get(&(a.clone(), b.clone())).copied().flatten(),
            path_b: self.routes.get(&(b.clone(), a.clone())).copied().flatten(),
            started_ns,
            first_data_ns: pair.first_received_ns.map(|at| at.saturating_sub(started_ns)),
            direct_ns: self.direct_at.get(names).map(|at| at.saturating_sub(started_ns)),
            paths,
            pathless_sent,
            pathless_lost,
            duplicates: pair.duplicates,
            longest_gap_ns,
            recoveries: self.recoveries(&flows, &gaps),
            gaps,
            switches,
            flows: flows.iter().map(|flow| flow.metrics.clone()).collect(),
        }
    }

    fn recoveries(&self, flows: &[&Flow], gaps: &[Gap]) -> Vec<Recovery> {
        let mut recoveries = Vec::new();
        for (n, (at_ns, what)) in self.actions.iter().enumerate() {
            let next_ns = self.actions.get(n + 1).map_or(u64::MAX, |next| next.0);
            if !flows.iter().any(|flow| flow.runs_after(*at_ns)) {
                continue;
            }
            let after = gaps.iter().filter(|gap| gap.to_ns > *at_ns && gap.from_ns < next_ns);
            let longest = after
                .map(|gap| (!gap.resumed, gap.to_ns - gap.from_ns.max(*at_ns), gap.to_ns - gap.since_ns))
                .max()
                .unwrap_or((false, 0, 0));
            let resumed = |ns| (!longest.0).then_some(ns);
            let (recovery_ns, silence_ns) = (resumed(longest.1), resumed(longest.2));
            recoveries.push(Recovery { at_ns: *at_ns, what: what.clone(), recovery_ns, silence_ns });
        }
        recoveries
    }
}

impl Flow {
    fn other(&self, host: &Name) -> Name {
        if *host == self.metrics.from { self.metrics.to.clone() } else { self.metrics.from.clone() }
    }

    fn runs_after(&self, at_ns: u64) -> bool {
        self.metrics.end_ns.is_none_or(|end| end > at_ns)
    }
}

impl Direction {
    fn receive(&mut self, t: u64, seq: u64, latency_ns: u64, flow: &Name, host: &Name) {
        if let Some(packet) = self.sent.get_mut(&seq) {
            packet.received = true;
        }
        let Some(last) = &self.last else {
            self.last = Some(Receipt { at_ns: t, seq, latency_ns });
            return;
        };
        let since_ns = last.at_ns;
        if let Some(due_ns) = self.due_ns(last) {
            self.gap((since_ns, due_ns, t), GAP_MIN_NS, flow, host);
        }
        if let Some(last) = &mut self.last {
            last.at_ns = t;
            if seq > last.seq {
                (last.seq, last.latency_ns) = (seq, latency_ns);
            }
        }
    }

    /// When the packet after the last one received should have come.
    fn due_ns(&self, last: &Receipt) -> Option<u64> {
        let (_, next) = self.sent.range(last.seq.checked_add(1)?..).next()?;
        Some(next.at_ns.saturating_add(last.latency_ns).max(last.at_ns))
    }

    fn gap(&mut self, (since_ns, from_ns, to_ns): (u64, u64, u64), min_ns: u64, flow: &Name, host: &Name) {
        let length_ns = to_ns.saturating_sub(from_ns);
        self.longest_gap_ns = self.longest_gap_ns.max(length_ns);
        if length_ns >= min_ns {
            self.gaps.push(Gap {
                flow: flow.clone(),
                host: host.clone(),
                since_ns,
                from_ns,
                to_ns,
                resumed: true,
            });
        }
    }

    /// Returns what counts for goodput: bytes and time since the last receipt, if both came by one path.
    fn receive_bulk(
        &mut self,
        t: u64,
        total_bytes: u64,
        path: Path,
        flow: &Name,
        host: &Name,
    ) -> Option<(u64, u64)> {
        let last = self.bulk.replace(Bulk { at_ns: t, total_bytes, path })?;
        self.gap((last.at_ns, last.at_ns, t), BULK_GAP_MIN_NS, flow, host);
        let since = (total_bytes.saturating_sub(last.total_bytes), t.saturating_sub(last.at_ns));
        (last.path == path).then_some(since)
    }

    /// The silence at the end of a flow. `host` is the key of this direction.
    fn open_gap(&self, flow: &Flow, host: &Name, end_ns: u64) -> Option<Gap> {
        let (receiver, since_ns, from_ns, min_ns) = if flow.metrics.kind == FlowKind::Bulk {
            let unfinished = flow.metrics.complete != Some(true);
            let at_ns = self.bulk.as_ref().filter(|_| unfinished)?.at_ns;
            (host.clone(), at_ns, at_ns, BULK_GAP_MIN_NS)
        } else {
            let last = self.last.as_ref()?;
            let unanswered = self.sent.range(last.seq.checked_add(1)?..).count();
            let due_ns = self.due_ns(last).filter(|_| unanswered >= OPEN_GAP_PACKETS)?;
            (flow.other(host), last.at_ns, due_ns, IN_FLIGHT_NS)
        };
        let gap = Gap {
            flow: flow.metrics.name.clone(),
            host: receiver,
            since_ns,
            from_ns,
            to_ns: end_ns,
            resumed: false,
        };
        (gap.length_ns() >= min_ns).then_some(gap)
    }
}

impl Samples {
    fn finish(&self) -> PathMetrics {
        let mut rtt_ns = self.rtt_ns.clone();
        rtt_ns.sort_unstable();
        let mut latency_ns = self.latency_ns.clone();
        latency_ns.sort_unstable();
        PathMetrics {
            received: self.received,
            echoes: rtt_ns.len() as u64,
            rtt_min_ns: rtt_ns.first().copied(),
            rtt_p50_ns: percentile(&rtt_ns, 50),
            rtt_p90_ns: percentile(&rtt_ns, 90),
            latency_p50_ns: percentile(&latency_ns, 50),
            latency_p90_ns: percentile(&latency_ns, 90),
            bulk_bytes: self.bulk_bytes,
            bulk_ns: self.bulk_ns,
            goodput_bps: rate_bps(self.bulk_bytes, self.bulk_ns),
            ..PathMetrics::default()
        }
    }
}

/// The two hosts in sorted order.
pub(crate) fn pair_of(one: &Name, other: &Name) -> (Name, Name) {
    if one <= other { (one.clone(), other.clone()) } else { (other.clone(), one.clone()) }
}

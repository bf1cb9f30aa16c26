//! Which packets were dropped by which box, and why.

use super::text::Text;
use crate::units;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use trace::{Event, Name, Payload, Record};

/// Most lines of this chapter.
const GROUPS: usize = 40;

/// Packets that one box dropped for one reason.
struct Group<'a> {
    first_ns: u64,
    last_ns: u64,
    count: u64,
    src: SocketAddr,
    dst: SocketAddr,
    destinations: BTreeSet<SocketAddr>,
    senders: BTreeSet<&'a Name>,
}

pub(super) fn tell(records: &[Record], text: &mut Text) {
    let mut senders: BTreeMap<u64, Option<&Name>> = BTreeMap::new();
    for record in records {
        if let Event::Dropped { id, .. } = &record.event {
            senders.insert(*id, None);
        }
    }
    let mut groups: BTreeMap<(&Name, &Name, Payload), Group<'_>> = BTreeMap::new();
    for record in records {
        match &record.event {
            Event::Sent { id, node, .. } => {
                if let Some(sender) = senders.get_mut(id) {
                    sender.get_or_insert(node);
                }
            }
            Event::Dropped { node, id, reason, src, dst, payload, .. } => {
                let group = groups.entry((node, reason, *payload)).or_insert_with(|| Group {
                    first_ns: record.t,
                    last_ns: record.t,
                    count: 0,
                    src: *src,
                    dst: *dst,
                    destinations: BTreeSet::new(),
                    senders: BTreeSet::new(),
                });
                group.last_ns = record.t;
                group.count += 1;
                group.destinations.insert(*dst);
                group.senders.extend(senders.get(id).copied().flatten());
            }
            _ => {}
        }
    }
    if groups.is_empty() {
        return;
    }
    text.heading("What was dropped, where and why");
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(key, group)| (group.first_ns, *key));
    for ((node, reason, payload), group) in groups.iter().take(GROUPS) {
        text.line(group.first_ns, &group.words(node, reason, *payload));
    }
    if let Some(rest) = groups.get(GROUPS..).filter(|rest| !rest.is_empty()) {
        let count: u64 = rest.iter().map(|(_, group)| group.count).sum();
        text.bullet(&format!("… and {} in other places.", units::plural(count, "packet")));
    }
}

impl Group<'_> {
    fn words(&self, node: &str, reason: &str, payload: Payload) -> String {
        let Group { src, dst, .. } = self;
        let what = units::plural(self.count, noun(payload));
        let from = match self.senders.len() {
            0 => format!("{src}"),
            1..=3 => {
                let names: Vec<&&Name> = self.senders.iter().collect();
                super::text::list(&names)
            }
            n => format!("{n} hosts"),
        };
        let to = match self.destinations.len() {
            1 => format!("{dst}"),
            n => format!(
                "{dst} and {}",
                if n == 2 { "one other address".to_owned() } else { format!("{} others", n - 1) }
            ),
        };
        let until = match self.count {
            1 => String::new(),
            _ => format!(" until {}", units::moment(self.last_ns)),
        };
        format!("{node} dropped {what} from {from} to {to}{until}: {}.", why(reason, *src, *dst))
    }
}

fn noun(payload: Payload) -> &'static str {
    match payload {
        Payload::Stun => "STUN message",
        Payload::Disco => "discovery message",
        Payload::Handshake => "tunnel handshake",
        Payload::Tunnel => "tunnelled packet",
        Payload::Tcp => "TCP segment",
        Payload::Icmp => "ICMP message",
        Payload::Other => "packet",
    }
}

/// What a reason of a drop means, for a reader who does not know it yet.
pub(super) fn why(reason: &str, src: SocketAddr, dst: SocketAddr) -> String {
    match reason {
        "no-binding" => format!("nobody inside had sent anything from {dst}, so there is no binding that says whose it is"),
        "filtered-address" => format!(
            "there is a binding for {dst}, but nothing had gone out through it to {} yet (address-dependent filtering)",
            src.ip()
        ),
        "filtered-port" => format!(
            "there is a binding for {dst}, but nothing had gone out through it to {src} yet \
             (address-and-port-dependent filtering)"
        ),
        "no-hairpin" => format!("it came from inside for the router's own address {}, and this NAT does not hairpin", dst.ip()),
        "table-full" => "its table of conversations is full".into(),
        "no-free-port" => "every external port of its range is taken".into(),
        "no-external-address" => "it has no external address of that family".into(),
        "not-our-address" => format!("{} is not an address of this NAT", dst.ip()),
        "not-a-syn" => "it is in the middle of a TCP connection that this box does not know (it forgot it, or never saw it)".into(),
        "unknown-quote" => "the ICMP error is about a packet that nobody here sent".into(),
        "udp-blocked" => "this firewall lets no UDP pass".into(),
        "port-not-allowed" => format!("this firewall does not let out port {}", dst.port()),
        "unsolicited" => "nobody inside had asked for it (stateful firewall, closed inbound)".into(),
        "queue-full" => "the queue in front of the link was full".into(),
        "loss" => "lost on the way".into(),
        "aqm" => "the queue in front of the link dropped it, so that its sender slows down".into(),
        "corrupted" => "damaged on the way, as its checksum showed".into(),
        "outage" => "the link failed for a while".into(),
        "too-big" => "it is larger than the link carries, and must not be fragmented".into(),
        "link-down" => "the link was down".into(),
        "router-off" => "the router was off".into(),
        "no-route" => format!("no network here leads to {} (a private address means nothing outside its own home)", dst.ip()),
        "no-such-host" => format!("nobody has the address {} in this network", dst.ip()),
        "direct-cut" => "this run was played with every direct path cut".into(),
        "ttl-expired" => "it had passed too many routers".into(),
        other => other.replace('-', " "),
    }
}

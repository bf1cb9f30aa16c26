//! Queues that are managed: CoDel (RFC 8289) and FQ-CoDel (RFC 8290).
//!
//! They decide about a packet when it leaves the queue, so its fate is not known when it comes.

use std::collections::VecDeque;

use crate::config::{Aqm, CoDel};
use crate::to_ns;

/// A packet that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    pub(crate) ticket: u64,
    pub(crate) bytes: u64,
    pub(crate) flow: u64,
    pub(crate) ecn_capable: bool,
    /// When it came, in nanoseconds.
    pub(crate) since: u64,
}

/// Largest packet, for CoDel's rule that a queue of one packet is never too long (RFC 8289 §4.4, `MAXPACKET`).
const MAX_PACKET: u64 = 1514;
/// Bytes that all queues hold at most without a limit of the scenario's own: RFC 8290 §5.2.3's 10240 packets.
const DEFAULT_LIMIT: u64 = 10_240 * MAX_PACKET;
/// FQ-CoDel drops at most so many packets at once when it is full (RFC 8290 §4.1.3).
const DROP_BATCH: usize = 64;

/// The packets of one CoDel queue, and how far it has got (the variables of RFC 8289 §5.3).
#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: u64,
    first_above: Option<u64>,
    drop_next: u64,
    count: u64,
    last_count: u64,
    dropping: bool,
}

impl Queue {
    fn push(&mut self, item: Item) {
        self.bytes += item.bytes;
        self.items.push_back(item);
    }

    fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.bytes -= item.bytes;
        Some(item)
    }

    /// Takes a packet out and says whether the delay has stood above the target for an interval.
    fn take(&mut self, codel: &CoDel, now: u64) -> Option<(Item, bool)> {
        let Some(item) = self.pop() else {
            self.first_above = None;
            return None;
        };
        if now.saturating_sub(item.since) < to_ns(codel.target) || self.bytes <= MAX_PACKET {
            self.first_above = None;
            return Some((item, false));
        }
        match self.first_above {
            None => {
                self.first_above = Some(now.saturating_add(to_ns(codel.interval)));
                Some((item, false))
            }
            Some(since) => Some((item, now >= since)),
        }
    }

    /// Takes the next packet to send out; what is dropped on the way goes into `dropped`.
    fn dequeue(&mut self, codel: &CoDel, now: u64, dropped: &mut Vec<Item>) -> Option<(Item, bool)> {
        let Some((mut item, mut late)) = self.take(codel, now) else {
            self.dropping = false;
            return None;
        };
        if self.dropping {
            if !late {
                self.dropping = false;
            }
            while self.dropping && now >= self.drop_next {
                self.count += 1;
                if codel.ecn && item.ecn_capable {
                    self.drop_next = control_law(self.drop_next, codel, self.count);
                    return Some((item, true));
                }
                dropped.push(item);
                let Some(next) = self.take(codel, now) else {
                    self.dropping = false;
                    return None;
                };
                (item, late) = next;
                if late {
                    self.drop_next = control_law(self.drop_next, codel, self.count);
                } else {
                    self.dropping = false;
                }
            }
        } else if late {
            let marked = codel.ecn && item.ecn_capable;
            self.dropping = true;
            // After a short break it goes on where it was.
            let delta = self.count.saturating_sub(self.last_count);
            let recent = now.saturating_sub(self.drop_next) < to_ns(codel.interval).saturating_mul(16);
            self.count = if delta > 1 && recent { delta } else { 1 };
            self.drop_next = control_law(now, codel, self.count);
            self.last_count = self.count;
            if marked {
                return Some((item, true));
            }
            dropped.push(item);
            let Some(next) = self.take(codel, now) else {
                self.dropping = false;
                return None;
            };
            item = next.0;
        }
        Some((item, false))
    }
}

/// `from` plus the interval over the root of `count` (RFC 8289 §5.5), the root with 16 bits after the point.
fn control_law(from: u64, codel: &CoDel, count: u64) -> u64 {
    let root = (u128::from(count.max(1)) << 32).isqrt();
    let step = (u128::from(to_ns(codel.interval)) << 16) / root;
    from.saturating_add(u64::try_from(step).unwrap_or(u64::MAX))
}

/// One queue of FQ-CoDel and its credit.
#[derive(Debug, Default)]
struct Flow {
    queue: Queue,
    credit: i64,
    /// On one of the lists.
    listed: bool,
}

/// The queues of a managed link.
#[derive(Debug, Default)]
pub(crate) struct Managed {
    flows: Vec<Flow>,
    /// Queues that had been empty, and those that have had their turn (RFC 8290 §4.2).
    new: VecDeque<usize>,
    old: VecDeque<usize>,
    packets: usize,
    bytes: u64,
}

impl Managed {
    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.packets == 0
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes a packet in. What had to go for it, itself perhaps, goes into `dropped`.
    pub(crate) fn enqueue(&mut self, aqm: &Aqm, limit: Option<u64>, item: Item, dropped: &mut Vec<Item>) {
        let limit = limit.unwrap_or(DEFAULT_LIMIT);
        let fair = if let Aqm::FqCoDel(fair) = aqm { Some(fair) } else { None };
        if fair.is_none() && self.packets > 0 && self.bytes.saturating_add(item.bytes) > limit {
            dropped.push(item);
            return;
        }
        let flows = fair.map_or(1, |fair| usize::from(fair.flows.max(1)));
        if self.flows.len() < flows {
            self.flows.resize_with(flows, Flow::default);
        }
        // Fits: the remainder is below the number of queues.
        let index = (item.flow % flows as u64) as usize;
        let flow = &mut self.flows[index];
        if !flow.listed {
            flow.listed = true;
            flow.credit = fair.map_or(1, |fair| i64::from(fair.quantum));
            self.new.push_back(index);
        }
        flow.queue.push(item);
        self.packets += 1;
        self.bytes = self.bytes.saturating_add(item.bytes);
        while self.bytes > limit && self.packets > 1 {
            self.shorten(dropped);
        }
    }

    /// Drops from the head of the longest queue: half of it, but no more than a batch.
    fn shorten(&mut self, dropped: &mut Vec<Item>) {
        let Some(longest) = self.flows.iter_mut().rev().max_by_key(|flow| flow.queue.bytes) else { return };
        let count = longest.queue.items.len().div_ceil(2).min(DROP_BATCH);
        for item in std::iter::from_fn(|| longest.queue.pop()).take(count) {
            self.packets -= 1;
            self.bytes -= item.bytes;
            dropped.push(item);
        }
    }

    /// Takes out the packet that goes next, and whether it is marked. What CoDel drops goes into `dropped`.
    pub(crate) fn dequeue(&mut self, aqm: &Aqm, now: u64, dropped: &mut Vec<Item>) -> Option<(Item, bool)> {
        let (codel, quantum) = match aqm {
            Aqm::CoDel(codel) => (Some(codel), 1),
            Aqm::FqCoDel(fair) => (Some(&fair.codel), i64::from(fair.quantum.max(1))),
            // What was in the queue when its management was ended.
            Aqm::DropTail | Aqm::Red(_) => (None, 1),
        };
        loop {
            let (index, is_new) = match (self.new.front(), self.old.front()) {
                (Some(index), _) => (*index, true),
                (None, Some(index)) => (*index, false),
                (None, None) => return None,
            };
            let list = if is_new { &mut self.new } else { &mut self.old };
            let flow = &mut self.flows[index];
            if flow.credit <= 0 {
                flow.credit += quantum;
                list.pop_front();
                self.old.push_back(index);
                continue;
            }
            let before = dropped.len();
            let next = match codel {
                Some(codel) => flow.queue.dequeue(codel, now, dropped),
                None => flow.queue.pop().map(|item| (item, false)),
            };
            self.packets -= dropped.len() - before;
            self.bytes -= dropped[before..].iter().map(|item| item.bytes).sum::<u64>();
            let Some((item, marked)) = next else {
                list.pop_front();
                // A new queue that ran dry waits for one round, so that it cannot starve the old ones (RFC 8290 §4.2).
                if is_new && !self.old.is_empty() {
                    self.old.push_back(index);
                } else {
                    flow.listed = false;
                }
                continue;
            };
            self.packets -= 1;
            self.bytes -= item.bytes;
            if quantum > 1 {
                // No IP packet is larger than 64 KiB.
                flow.credit -= item.bytes.min(1 << 16) as i64;
            }
            return Some((item, marked));
        }
    }
}

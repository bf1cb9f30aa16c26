//! One direction of a cable.
//!
//! A packet first waits in a queue and is serialised at the link's rate, then travels: it may be lost, and arrives after the
//! delay and its jitter. [`Link::send`] says at once what becomes of it, so a link needs no timer, unless its queue is
//! managed by CoDel or FQ-CoDel, which decide about a packet when it leaves the queue.
//!
//! ```
//! # use std::time::{Duration, Instant};
//! use link::{Link, LinkConfig, Sent};
//! use rand_pcg::{Pcg64Mcg, rand_core::SeedableRng as _};
//!
//! let config = LinkConfig {
//!     delay: Duration::from_millis(20),
//!     rate_bps: Some(10_000_000),
//!     queue_bytes: Some(15_000),
//!     ..LinkConfig::default()
//! };
//! let mut link = Link::new(config, Pcg64Mcg::seed_from_u64(1));
//! # #[expect(clippy::disallowed_methods, reason = "an example has to start somewhere")]
//! let now = Instant::now();
//! let at = now + Duration::from_micros(1_200 + 20_000); // 1500 bytes at 10 Mbit/s, then the way
//! let Sent::Deliver { at: arrives, queued, .. } = link.send(1500, now) else { panic!("it arrives") };
//! assert_eq!((arrives, queued), (at, Duration::ZERO));
//! ```
//!
//! With a managed queue, [`Sent::Queued`] gives a ticket, and the loop is that of every core:
//!
//! ```
//! # use std::time::{Duration, Instant};
//! # use link::{Aqm, CoDel, Link, LinkConfig, Sent};
//! # use rand_pcg::{Pcg64Mcg, rand_core::SeedableRng as _};
//! # let config = LinkConfig {
//! #     rate_bps: Some(12_000_000),
//! #     aqm: Aqm::CoDel(CoDel::DEFAULT),
//! #     ..LinkConfig::default()
//! # };
//! # let mut link = Link::new(config, Pcg64Mcg::seed_from_u64(1));
//! # #[expect(clippy::disallowed_methods, reason = "an example has to start somewhere")]
//! # let mut now = Instant::now();
//! let tickets = [1500, 1500].map(|bytes| link.send(bytes, now));
//! assert_eq!(tickets, [Sent::Queued(0), Sent::Queued(1)]);
//! let mut arrived = Vec::new();
//! loop {
//!     while let Some((ticket, fate)) = link.poll_sent() {
//!         if let Sent::Deliver { .. } = fate {
//!             arrived.push(ticket);
//!         }
//!     }
//!     let Some(deadline) = link.poll_timeout() else { break };
//!     now = deadline;
//!     link.handle_timeout(now);
//! }
//! assert_eq!(arrived, [0, 1]);
//! ```
//!
//! # The model
//! - **Queue**: it holds the packets that wait, in bytes; the one on the wire is no longer in it. A packet that would
//!   take it over its limit is dropped, unless the queue is managed otherwise ([`Aqm`]). Without a rate there is no queue.
//! - **Time** is integer nanoseconds. A packet that ends between two nanoseconds arrives at the later one, and
//!   the next packet starts from the exact fraction, so that a long burst neither gains nor loses time.
//! - **Rate**: constant, or as a [`Trace`](trace::Trace) has it.
//! - **Loss** ([`Loss`]) strikes on the way, after the packet has used its share of the rate; so do damage, duplication and
//!   packets held back.
//! - **Outages** lose what is offered while they last, and what leaves the wire while they last.
//! - **Order**: unless the configuration allows overtaking, a packet with little jitter waits for its predecessor. One that is
//!   held back ([`Late`]) is overtaken all the same.
//! - **MTU**: a larger packet is dropped before the queue. What tells its sender is the caller's to send.
//! - **Changes** of the configuration count for later packets. Those sent keep the fate they were told, and one sent
//!   later waits for them, at the rate they were sent with. Those in a managed queue are sent as the new configuration has it.
//! - **ECN**: a queue marks packets that call themselves capable of it; what a mark means is the caller's business.
//!
//! It does no framing: `bytes` is whatever the caller counts. Queues share nothing: no airtime is shared by the two
//! directions of a radio link, and no other users compete for it.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use rand_pcg::Pcg64Mcg;

mod aqm;
mod config;
mod delay;
pub mod presets;
mod queue;
mod red;
mod special;
pub mod trace;

pub use config::{Aqm, CoDel, FqCoDel, Late, LinkConfig, Loss, Mtu, Outages, Red, Share, StepTo, Steps};
pub use delay::{Jitter, Quantiles, QuantilesError};

use aqm::Item;
use delay::{half_width, vary_evenly};
use queue::{Slot, Waiting, Wire};
use red::Decision;
use special::Special;

/// A packet, as far as a cable sees it.
pub trait Frame {
    /// How many bytes it takes.
    fn bytes(&self) -> usize;

    /// Which flow it belongs to: a hash of addresses and ports. Asked for by FQ-CoDel alone.
    fn flow(&self) -> u64 {
        0
    }

    /// Whether its sender would understand a mark (RFC 3168: ECT(0), ECT(1) or already CE).
    fn ecn_capable(&self) -> bool {
        false
    }
}

/// Nothing but its size.
impl Frame for usize {
    fn bytes(&self) -> usize {
        *self
    }
}

impl<F: Frame> Frame for &F {
    fn bytes(&self) -> usize {
        (*self).bytes()
    }

    fn flow(&self) -> u64 {
        (*self).flow()
    }

    fn ecn_capable(&self) -> bool {
        (*self).ecn_capable()
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It arrives.
    Deliver {
        /// When its last bit arrives.
        at: Instant,
        /// How long it waits before its first bit is sent.
        queued: Duration,
        /// Whether the queue marks it: congestion experienced (RFC 3168).
        marked: bool,
        /// Whether it arrives twice, both in that instant.
        twice: bool,
    },
    /// It waits in a managed queue; what becomes of it comes out of [`Link::poll_sent`] under this ticket.
    Queued(u64),
    /// It does not arrive.
    Drop(DropReason),
}

/// Why a link dropped a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// The queue had no room.
    QueueFull,
    /// The management of the queue chose it.
    Aqm,
    /// Lost on the way.
    Loss,
    /// Damaged on the way: the far end finds that its checksum is wrong.
    Corrupted,
    /// The link was down.
    Down,
    /// An outage of the schedule.
    Outage,
    /// Larger than the link carries, and not to be fragmented.
    TooBig {
        /// The largest packet that passes, in bytes.
        mtu: u16,
        /// Whether the sender is told so by ICMP.
        tells: bool,
    },
}

impl DropReason {
    /// A short word for logs; it never changes.
    pub const fn as_str(self) -> &'static str {
        match self {
            DropReason::QueueFull => "queue-full",
            DropReason::Aqm => "aqm",
            DropReason::Loss => "loss",
            DropReason::Corrupted => "corrupted",
            DropReason::Down => "link-down",
            DropReason::Outage => "outage",
            DropReason::TooBig { .. } => "too-big",
        }
    }

    /// One plain sentence for people.
    pub const fn sentence(self) -> &'static str {
        match self {
            DropReason::QueueFull => "The queue in front of the link was full.",
            DropReason::Aqm => "The queue in front of the link dropped it, so that the sender slows down.",
            DropReason::Loss => "The packet was lost on the way.",
            DropReason::Corrupted => "The packet was damaged on the way, and its checksum showed it.",
            DropReason::Down => "The link was down.",
            DropReason::Outage => "The link failed for a while.",
            DropReason::TooBig { .. } => "The packet is larger than the link carries.",
        }
    }
}

impl std::fmt::Display for DropReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What each packet on a plain link needs of the configuration: a tenth of it, so that a thousand links stay in the cache.
#[derive(Debug, Clone, Copy)]
struct Plain {
    rate_bps: Option<NonZeroU64>,
    /// `u64::MAX` = no limit.
    queue_bytes: u64,
    delay_ns: u64,
    /// Half the width of the uniform jitter; one of no width is none.
    half_ns: Option<NonZeroU64>,
    loss: Share,
    may_reorder: bool,
    /// A rate of zero lets nothing pass.
    stopped: bool,
}

impl Plain {
    fn of(config: &LinkConfig) -> Plain {
        Plain {
            rate_bps: config.rate_bps.and_then(NonZeroU64::new),
            queue_bytes: config.queue_bytes.unwrap_or(u64::MAX),
            delay_ns: to_ns(config.delay),
            half_ns: match config.jitter {
                Jitter::Uniform { plus_minus } => NonZeroU64::new(half_width(plus_minus)),
                _ => None,
            },
            loss: match config.loss {
                Loss::Random(share) => share,
                _ => Share::default(),
            },
            may_reorder: config.may_reorder,
            stopped: config.rate_bps == Some(0),
        }
    }
}

/// One direction of a cable.
#[derive(Debug)]
pub struct Link {
    plain: Plain,
    config: Box<LinkConfig>,
    up: bool,
    rng: Pcg64Mcg,
    epoch: Option<Instant>,
    wire: Wire,
    waiting: Waiting,
    /// The latest arrival promised, in nanoseconds.
    last_arrival: u64,
    /// What its random times are drawn from.
    times: u64,
    /// There is one if the configuration asks for more than the plain link.
    special: Option<Box<Special>>,
}

impl Link {
    /// A link that is up and empty. Its schedules count from the first packet, see [`Self::anchored`].
    pub fn new(config: LinkConfig, rng: Pcg64Mcg) -> Link {
        let mut link = Link {
            plain: Plain::of(&config),
            config: Box::default(),
            up: true,
            rng,
            epoch: None,
            wire: Wire::default(),
            waiting: Waiting::default(),
            last_arrival: 0,
            times: 0,
            special: None,
        };
        link.set_config(config);
        link
    }

    /// Lets schedules (traces, outages, steps of the delay) count from `start`, which must not lie after the first packet, and
    /// draws their random times from `times`: two directions with the same number fail and step together.
    #[must_use]
    pub fn anchored(mut self, start: Instant, times: u64) -> Link {
        self.epoch = Some(start);
        self.times = times;
        if self.special.is_some() {
            self.special = Some(Box::new(Special::new(times)));
        }
        self
    }

    /// The configuration.
    pub fn config(&self) -> &LinkConfig {
        &self.config
    }

    /// Changes the configuration, for later packets and those in a managed queue.
    pub fn set_config(&mut self, config: LinkConfig) {
        self.plain = Plain::of(&config);
        *self.config = config;
        if !self.config.is_plain() {
            self.special.get_or_insert_with(|| Box::new(Special::new(self.times)));
        } else if self.special.as_ref().is_some_and(|special| !special.is_busy()) {
            self.special = None;
        }
    }

    /// Whether later packets pass at all. Those sent before still arrive, unless they are in a managed queue.
    pub fn set_up(&mut self, up: bool) {
        self.up = up;
    }

    /// Whether the link is up.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Sends a packet. `now` must not run backwards; if it does, the packet waits for its predecessors all the same.
    pub fn send(&mut self, packet: impl Frame, now: Instant) -> Sent {
        if !self.up || self.plain.stopped {
            return Sent::Drop(DropReason::Down);
        }
        let epoch = *self.epoch.get_or_insert(now);
        let now_ns = to_ns(now.saturating_duration_since(epoch));
        if self.special.is_some() {
            return self.send_special(&packet, now_ns);
        }
        let Plain { rate_bps, queue_bytes, delay_ns, half_ns, loss, .. } = self.plain;
        let bytes = packet.bytes() as u64;
        let Some(slot) = self.waiting.pass(
            &mut self.wire,
            bytes,
            now_ns,
            rate_bps.map(NonZeroU64::get),
            Some(queue_bytes),
        ) else {
            return Sent::Drop(DropReason::QueueFull);
        };
        if loss.hits(&mut self.rng) {
            return Sent::Drop(DropReason::Loss);
        }
        let delay = match half_ns {
            Some(half) => vary_evenly(delay_ns, half.get(), &mut self.rng),
            None => delay_ns,
        };
        self.arrive(epoch, slot.end.saturating_add(delay), slot.start - now_ns)
    }

    /// When [`Self::handle_timeout`] has something to do: a packet leaves the managed queue.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let special = self.special.as_ref().filter(|special| !special.managed.is_empty())?;
        self.epoch?.checked_add(Duration::from_nanos(self.next_start(special)))
    }

    /// Lets packets leave the managed queue that may by now.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Some(epoch) = self.epoch else { return };
        if let Some(mut special) = self.special.take() {
            self.drain(&mut special, to_ns(now.saturating_duration_since(epoch)));
            if !self.config.is_plain() || special.is_busy() {
                self.special = Some(special);
            }
        }
    }

    /// A packet that has left the managed queue, with its ticket and what becomes of it: delivered or dropped.
    pub fn poll_sent(&mut self) -> Option<(u64, Sent)> {
        self.special.as_mut()?.fates.pop_front()
    }

    /// How many bytes wait for the wire.
    pub fn queued_bytes(&mut self, now: Instant) -> u64 {
        let Some(epoch) = self.epoch else { return 0 };
        self.waiting.start_due(to_ns(now.saturating_duration_since(epoch)));
        let managed = self.special.as_ref().map_or(0, |special| special.managed.bytes());
        self.waiting.bytes() + managed
    }

    /// A packet that arrives at `arrival`, or with its predecessor.
    #[inline(always)]
    fn arrive(&mut self, epoch: Instant, mut arrival: u64, queued: u64) -> Sent {
        if !self.plain.may_reorder {
            arrival = arrival.max(self.last_arrival);
        }
        self.last_arrival = self.last_arrival.max(arrival);
        delivered(epoch, arrival, queued)
    }
}

/// The rest is for links that are more than plain.
impl Link {
    #[cold]
    fn send_special(&mut self, packet: &impl Frame, now: u64) -> Sent {
        let Some(mut special) = self.special.take() else { return Sent::Drop(DropReason::Down) };
        let sent = self.offer(&mut special, packet, now);
        if !self.config.is_plain() || special.is_busy() {
            self.special = Some(special);
        }
        sent
    }

    fn offer(&mut self, special: &mut Special, packet: &impl Frame, now: u64) -> Sent {
        let bytes = packet.bytes() as u64;
        if let Some(Mtu { bytes: mtu, tells }) = self.config.mtu
            && bytes > u64::from(mtu)
        {
            return Sent::Drop(DropReason::TooBig { mtu, tells });
        }
        if special.is_out(&self.config, now, now) {
            return Sent::Drop(DropReason::Outage);
        }
        let managed = matches!(self.config.aqm, Aqm::CoDel(_) | Aqm::FqCoDel(_));
        // After management has been switched off, what is still in its queue goes first.
        if managed && self.limits() || !special.managed.is_empty() {
            return self.enqueue(special, packet, bytes, now);
        }
        self.waiting.start_due(now);
        let mut marked = false;
        if let Aqm::Red(red) = &self.config.aqm
            && self.limits()
        {
            let idle = self.waiting.is_empty().then(|| now.saturating_sub(self.wire.next_start()));
            let rate = match &self.config.trace {
                Some(trace) => trace.mean_bps(),
                None => self.config.rate_bps.unwrap_or(u64::MAX),
            };
            // A trace does not say since when there was nothing to send.
            let idle = idle.filter(|idle| *idle > 0 && self.config.trace.is_none());
            let queued = self.waiting.bytes();
            match special.red.arrive(red, queued, idle, rate, packet.ecn_capable(), &mut self.rng) {
                Decision::Pass => {}
                Decision::Mark => marked = true,
                Decision::Drop => return Sent::Drop(DropReason::Aqm),
            }
        }
        let limit = self.config.queue_bytes;
        let slot = if let Some(trace) = &self.config.trace {
            if !self.waiting.is_empty() && self.waiting.is_full_for(bytes, limit) {
                return Sent::Drop(DropReason::QueueFull);
            }
            let start = special.position.start(trace, now);
            let slot = Slot { start, end: special.position.transmit(trace, bytes) };
            self.waiting.push(slot.start, bytes, now);
            slot
        } else {
            let rate = self.config.rate_bps;
            let Some(slot) = self.waiting.pass(&mut self.wire, bytes, now, rate, limit) else {
                return Sent::Drop(DropReason::QueueFull);
            };
            slot
        };
        self.travel(special, slot, now, now, marked)
    }

    /// Whether there is anything to wait for.
    fn limits(&self) -> bool {
        self.config.rate_bps.is_some() || self.config.trace.is_some()
    }

    /// Into the managed queue, and out again at once if nothing is in the way.
    fn enqueue(&mut self, special: &mut Special, packet: &impl Frame, bytes: u64, now: u64) -> Sent {
        let ticket = special.next_ticket;
        special.next_ticket += 1;
        if special.managed.is_empty() {
            // A transmitter that has been idle is free from now on.
            self.wire.is_idle(now);
            if let Some(trace) = &self.config.trace {
                special.position.start(trace, now);
            }
        }
        let (flow, ecn_capable) = (packet.flow(), packet.ecn_capable());
        // No packet is larger, and sums of them fit.
        let bytes = bytes.min(u64::from(u32::MAX));
        let item = Item { ticket, bytes, flow, ecn_capable, since: now };
        let mut dropped = std::mem::take(&mut special.scratch);
        special.managed.enqueue(&self.config.aqm, self.config.queue_bytes, item, &mut dropped);
        let full = |item: Item| (item.ticket, Sent::Drop(DropReason::QueueFull));
        special.fates.extend(dropped.drain(..).map(full));
        special.scratch = dropped;
        self.drain(special, now);
        Sent::Queued(ticket)
    }

    /// When the next packet can leave the managed queue.
    fn next_start(&self, special: &Special) -> u64 {
        match &self.config.trace {
            Some(trace) => special.position.next_start(trace).max(self.wire.next_start()),
            None => self.wire.next_start(),
        }
    }

    fn drain(&mut self, special: &mut Special, now: u64) {
        while !special.managed.is_empty() && self.next_start(special) <= now {
            let mut dropped = std::mem::take(&mut special.scratch);
            let next = special.managed.dequeue(&self.config.aqm, now, &mut dropped);
            let chosen = |item: Item| (item.ticket, Sent::Drop(DropReason::Aqm));
            special.fates.extend(dropped.drain(..).map(chosen));
            special.scratch = dropped;
            let Some((item, marked)) = next else { break };
            let fate = if self.up && self.config.rate_bps != Some(0) {
                let slot = match &self.config.trace {
                    Some(trace) => Slot { start: now, end: special.position.transmit(trace, item.bytes) },
                    None => self.wire.transmit(item.bytes, self.config.rate_bps),
                };
                self.travel(special, slot, item.since, now, marked)
            } else {
                Sent::Drop(DropReason::Down)
            };
            special.fates.push_back((item.ticket, fate));
        }
    }

    /// From the wire to the far end. `since` is when the packet came.
    fn travel(&mut self, special: &mut Special, slot: Slot, since: u64, now: u64, marked: bool) -> Sent {
        if special.is_out(&self.config, slot.end, now) {
            return Sent::Drop(DropReason::Outage);
        }
        if let Some(reason) = special.lose(&self.config, slot.end, &mut self.rng) {
            return Sent::Drop(reason);
        }
        let delay = special.delay(&self.config, slot.end);
        let arrival = slot.end.saturating_add(self.config.jitter.vary(delay, &mut self.rng));
        let queued = slot.start.saturating_sub(since);
        let late = self.config.late;
        let Some(epoch) = self.epoch else { return Sent::Drop(DropReason::Down) };
        let mut sent = if late.share.hits(&mut self.rng) {
            // Nobody waits for it.
            delivered(epoch, arrival.saturating_add(to_ns(late.by)), queued)
        } else {
            self.arrive(epoch, arrival, queued)
        };
        if let Sent::Deliver { marked: mark, twice, .. } = &mut sent {
            *mark = marked;
            *twice = self.config.duplicate.hits(&mut self.rng);
        }
        sent
    }
}

/// It arrives, unless that is beyond what the clock can say.
#[inline(always)]
fn delivered(epoch: Instant, arrival: u64, queued: u64) -> Sent {
    match epoch.checked_add(Duration::from_nanos(arrival)) {
        Some(at) => {
            let queued = Duration::from_nanos(queued);
            Sent::Deliver { at, queued, marked: false, twice: false }
        }
        None => Sent::Drop(DropReason::Loss),
    }
}

/// Nanoseconds, at most 584 years of them.
#[inline]
pub(crate) fn to_ns(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(duration.subsec_nanos()))
}

//! What a link is like, as plain data.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use rand_pcg::Pcg64Mcg;

use crate::Jitter;
use crate::trace::{DelayTrace, Trace};

/// A share of all packets, or a probability, in parts per billion, so that no decision needs a float.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    /// None.
    pub const NONE: Share = Share(0);
    /// All.
    pub const ALL: Share = Share(1_000_000_000);

    /// That many of a billion packets; more than a billion counts as all of them.
    pub const fn per_billion(parts: u32) -> Share {
        if parts > Share::ALL.0 { Share::ALL } else { Share(parts) }
    }

    /// That many of a hundred packets; more than a hundred counts as all of them.
    pub const fn percent(parts: u32) -> Share {
        Share::per_billion(parts.saturating_mul(10_000_000))
    }

    /// The parts per billion.
    pub const fn parts_per_billion(self) -> u32 {
        self.0
    }

    /// Whether a packet is one of them. Draws nothing when none is.
    pub(crate) fn hits(self, rng: &mut Pcg64Mcg) -> bool {
        self.0 > 0 && rng.random_range(0..Share::ALL.0) < self.0
    }
}

/// How packets are lost on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Each packet for itself.
    Random(Share),
    /// In bursts: the Gilbert–Elliott model (Gilbert 1960, Elliott 1963), a chain of two states that takes a step with
    /// every packet. It starts in the good state. The letters are those of the literature and of tc-netem(8), which asks for
    /// the losses 1 - h and 1 - k instead.
    GilbertElliott {
        /// From good to bad, after a packet.
        p: Share,
        /// From bad to good, after a packet.
        r: Share,
        /// Packets that pass in the bad state.
        h: Share,
        /// Packets that pass in the good state.
        k: Share,
    },
    /// The last `length` of every `every` packets.
    Burst {
        /// Lost in a row.
        length: u32,
        /// From the end of one burst to the end of the next.
        every: u32,
    },
}

impl Loss {
    /// Nothing is lost.
    pub const NONE: Loss = Loss::Random(Share::NONE);
    /// Everything is lost.
    pub const ALL: Loss = Loss::Random(Share::ALL);

    /// That many of a billion packets, at random.
    pub const fn per_billion(parts: u32) -> Loss {
        Loss::Random(Share::per_billion(parts))
    }

    /// That many of a hundred packets, at random.
    pub const fn percent(parts: u32) -> Loss {
        Loss::Random(Share::percent(parts))
    }

    /// Every `n`-th packet, beginning with the `n`-th.
    pub const fn every(n: u32) -> Loss {
        Loss::Burst { length: 1, every: n }
    }
}

impl Default for Loss {
    fn default() -> Self {
        Loss::NONE
    }
}

/// Packets that are held back for a while, so that later ones overtake them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Late {
    /// How many.
    pub share: Share,
    /// For how long, on top of the delay.
    pub by: Duration,
}

/// The largest packet that passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mtu {
    /// Bytes of the IP packet.
    pub bytes: u16,
    /// Whether the sender of a larger one is told (RFC 1191, RFC 8201). A black hole tells nobody (RFC 2923 §2.1).
    pub tells: bool,
}

/// Times at which nothing passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outages {
    /// From the start of one to the start of the next; if at random, the mean time from the end of one to the start of the next.
    pub every: Duration,
    /// How long each lasts.
    pub lasts: Duration,
    /// When the first may start at the earliest, after the start of the run.
    pub first: Duration,
    /// Whether they come at random (as a Poisson process) rather than like clockwork.
    pub random: bool,
}

/// Changes of the delay at fixed times, in both directions alike: a route that flaps, satellites that take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    /// From one change to the next.
    pub every: Duration,
    /// The first change, after the start of the run.
    pub first: Duration,
    /// How far the delay moves.
    pub by: Duration,
    /// To where it moves.
    pub to: StepTo,
    /// How long after a change packets are lost.
    pub disturbed: Duration,
    /// How many of them.
    pub loss: Share,
}

/// To where the delay moves at a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepTo {
    /// Anywhere from the delay less the step to the delay plus the step, drawn anew each time.
    Anywhere,
    /// Up by the step, and back the next time.
    UpAndBack,
}

/// Active queue management: what is dropped or marked before the queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aqm {
    /// None: what does not fit is dropped.
    #[default]
    DropTail,
    /// CoDel (RFC 8289).
    CoDel(CoDel),
    /// FQ-CoDel (RFC 8290).
    FqCoDel(FqCoDel),
    /// Random early detection (Floyd and Jacobson 1993; RFC 2309 §4).
    Red(Red),
}

/// CoDel drops from the head of a queue that has kept packets longer than its target for an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoDel {
    /// The delay that may stand.
    pub target: Duration,
    /// For how long it may be exceeded: a round trip in the worst case.
    pub interval: Duration,
    /// Whether packets of ECN-capable flows are marked instead (RFC 3168).
    pub ecn: bool,
}

impl CoDel {
    /// RFC 8289 §4.3 and §4.4; ECN is off, as in Linux's `codel` (tc-codel(8)).
    pub const DEFAULT: CoDel =
        CoDel { target: Duration::from_millis(5), interval: Duration::from_millis(100), ecn: false };
}

/// FQ-CoDel gives each flow a queue of its own with CoDel on it, and flows that send little go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FqCoDel {
    /// Of each queue.
    pub codel: CoDel,
    /// How many queues the flows are hashed to; at least one.
    pub flows: u16,
    /// Bytes that a queue may send before the next one's turn.
    pub quantum: u32,
}

impl FqCoDel {
    /// RFC 8290 §5.2; ECN is on, as in Linux (tc-fq_codel(8)).
    pub const DEFAULT: FqCoDel =
        FqCoDel { codel: CoDel { ecn: true, ..CoDel::DEFAULT }, flows: 1024, quantum: 1514 };
}

/// RED drops arriving packets the more often the longer the queue has been on average.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Red {
    /// Average below which nothing happens, in bytes.
    pub min: u64,
    /// Average from which every packet is dropped, ECN or not.
    pub max: u64,
    /// The share at an average just below `max`.
    pub probability: Share,
    /// Whether packets of ECN-capable flows are marked instead (RFC 3168 §5), below `max`.
    pub ecn: bool,
}

/// What a link is like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkConfig {
    /// Propagation delay.
    pub delay: Duration,
    /// Variation of the delay.
    pub jitter: Jitter,
    /// Bits per second; `None` for no limit. A link with a rate of 0 is down.
    pub rate_bps: Option<u64>,
    /// How many bytes may wait; `None` for no limit.
    pub queue_bytes: Option<u64>,
    /// Packets lost on the way.
    pub loss: Loss,
    /// Whether jitter may make packets overtake each other.
    pub may_reorder: bool,
    /// How the queue is managed. Without a rate or a trace there is none.
    pub aqm: Aqm,
    /// When packets may go, in place of the rate.
    pub trace: Option<Arc<Trace>>,
    /// The propagation delay as it changes, in place of `delay`.
    pub delays: Option<Arc<DelayTrace>>,
    /// Packets held back.
    pub late: Late,
    /// Packets that arrive twice, both in the same instant.
    pub duplicate: Share,
    /// Packets damaged on the way, which the far end finds by a checksum and drops.
    pub corrupt: Share,
    /// The largest packet.
    pub mtu: Option<Mtu>,
    /// Times at which nothing passes.
    pub outages: Option<Outages>,
    /// Changes of the delay at fixed times.
    pub steps: Option<Steps>,
}

impl LinkConfig {
    /// Whether it is but a delay with uniform jitter, a rate, a drop-tail queue and random loss.
    pub(crate) fn is_plain(&self) -> bool {
        let LinkConfig {
            delay: _,
            jitter,
            rate_bps: _,
            queue_bytes: _,
            loss,
            may_reorder: _,
            aqm,
            trace,
            delays,
            late,
            duplicate,
            corrupt,
            mtu,
            outages,
            steps,
        } = self;
        matches!(jitter, Jitter::None | Jitter::Uniform { .. })
            && matches!(loss, Loss::Random(_))
            && *aqm == Aqm::DropTail
            && trace.is_none()
            && delays.is_none()
            && late.share == Share::NONE
            && *duplicate == Share::NONE
            && *corrupt == Share::NONE
            && mtu.is_none()
            && outages.is_none()
            && steps.is_none()
    }
}

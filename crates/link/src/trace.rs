//! Rates and delays that change as a file says.

use std::fmt;
use std::time::Duration;

/// Bytes that one line of a trace lets pass: mahimahi's `PACKET_SIZE` (`src/packet/queued_packet.hh`), a full Ethernet packet.
/// mahimahi counts 4 bytes of a TUN header in, this crate only what the caller counts.
pub const OPPORTUNITY_BYTES: u64 = 1500;
/// Most lines of a trace.
pub const MAX_LINES: usize = 1_000_000;
/// Longest time in a trace, in milliseconds: a day.
pub const MAX_MS: u64 = 86_400_000;

/// When packets may go, in the format of mahimahi's traces (Netravali et al., USENIX ATC 2015; mm-link(1)): one line for each
/// chance to send 1500 bytes, with its time in milliseconds. After the last one it starts again.
///
/// As in mahimahi's `LinkQueue`: a chance that finds nothing to send is gone, and so is one in the very instant of an arrival;
/// small packets share one; a packet that does not fit goes on with the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    name: String,
    chances_ms: Vec<u32>,
}

/// A delay that changes: a line `MILLISECONDS,DELAY` for each change, the delay in milliseconds with up to six decimals. The first
/// line begins at 0; the last delay stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelayTrace {
    name: String,
    /// Since when, and how long, in nanoseconds.
    steps: Vec<(u64, u64)>,
}

/// What is wrong with a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceError {
    /// The line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong with it.
    pub kind: TraceErrorKind,
}

/// See [`TraceError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceErrorKind {
    /// No lines.
    Empty,
    /// More than [`MAX_LINES`].
    TooLong,
    /// A line that is no whole number of milliseconds up to [`MAX_MS`].
    NoTime,
    /// A time before that of the line above, or in a trace of delays not after it.
    Backwards,
    /// A trace of rates that ends at 0 ms would start again without end.
    NoLength,
    /// A line without a delay in milliseconds after a comma.
    NoDelay,
    /// A trace of delays that does not begin at 0 ms.
    LateStart,
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        match self.kind {
            TraceErrorKind::Empty => f.write_str("the trace is empty"),
            TraceErrorKind::TooLong => write!(f, "more than {MAX_LINES} lines"),
            TraceErrorKind::NoTime => write!(f, "not a whole number of milliseconds from 0 to {MAX_MS}"),
            TraceErrorKind::Backwards => f.write_str("the time runs backwards"),
            TraceErrorKind::NoLength => f.write_str("the last time is 0, so that the trace has no length"),
            TraceErrorKind::NoDelay => {
                f.write_str("no delay in milliseconds after the time, as in `1500,24.5`")
            }
            TraceErrorKind::LateStart => f.write_str("the first time is not 0"),
        }
    }
}

impl std::error::Error for TraceError {}

/// The lines of a trace with their numbers; the last may or may not end with a line feed.
fn lines(text: &str) -> Result<impl Iterator<Item = (usize, &str)>, TraceError> {
    let whole = |kind| TraceError { line: 0, kind };
    if text.is_empty() {
        return Err(whole(TraceErrorKind::Empty));
    }
    if text.lines().nth(MAX_LINES).is_some() {
        return Err(whole(TraceErrorKind::TooLong));
    }
    Ok((1..).zip(text.lines()))
}

fn milliseconds(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|ms| digits && *ms <= MAX_MS)
}

impl Trace {
    /// Reads a trace; `name` is what [`Trace::name`] gives back.
    ///
    /// # Errors
    /// What is wrong, and in which line.
    pub fn parse(name: &str, text: &str) -> Result<Trace, TraceError> {
        let mut chances_ms: Vec<u32> = Vec::new();
        let mut last = 0;
        for (line, text) in lines(text)? {
            let wrong = |kind| TraceError { line, kind };
            let ms = milliseconds(text.trim()).ok_or(wrong(TraceErrorKind::NoTime))?;
            let ms = u32::try_from(ms).map_err(|_| wrong(TraceErrorKind::NoTime))?;
            if ms < last {
                return Err(wrong(TraceErrorKind::Backwards));
            }
            last = ms;
            chances_ms.push(ms);
        }
        if last == 0 {
            return Err(TraceError { line: chances_ms.len(), kind: TraceErrorKind::NoLength });
        }
        Ok(Trace { name: name.to_owned(), chances_ms })
    }

    /// What it was called when it was read.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The times of the chances, in milliseconds; never empty, and the last one is its length.
    pub fn chances_ms(&self) -> &[u32] {
        &self.chances_ms
    }

    /// After how long it starts again.
    pub fn length(&self) -> Duration {
        Duration::from_millis(self.length_ms())
    }

    /// The mean rate in bits per second, rounded down.
    pub fn mean_bps(&self) -> u64 {
        self.chances_ms.len() as u64 * OPPORTUNITY_BYTES * 8 * 1000 / self.length_ms()
    }

    fn length_ms(&self) -> u64 {
        self.chances_ms.last().map_or(1, |ms| u64::from(*ms))
    }

    /// When the chance of this number comes, counted over all rounds, in nanoseconds.
    fn at(&self, number: u64) -> u64 {
        let count = self.chances_ms.len() as u64;
        let in_round = self.chances_ms[(number % count) as usize];
        let round = (number / count).saturating_mul(self.length_ms());
        round.saturating_add(u64::from(in_round)).saturating_mul(1_000_000)
    }

    /// The number of the first chance after `now`, in nanoseconds.
    fn after(&self, now: u64) -> u64 {
        let (count, length) = (self.chances_ms.len() as u64, self.length_ms() * 1_000_000);
        let (round, in_round) = (now / length, now % length);
        // The last one comes at the end of the round, so there is one.
        let gone = self.chances_ms.partition_point(|ms| u64::from(*ms) * 1_000_000 <= in_round);
        round.saturating_mul(count).saturating_add(gone as u64)
    }
}

/// How far a link has got in its trace.
#[derive(Debug, Default)]
pub(crate) struct Position {
    /// The chance that is used next.
    number: u64,
    /// Bytes of it that are gone.
    used: u64,
}

impl Position {
    /// When a packet that comes now can begin to go.
    pub(crate) fn start(&mut self, trace: &Trace, now: u64) -> u64 {
        let at = trace.at(self.number);
        if at > now {
            return at;
        }
        *self = Position { number: trace.after(now), used: 0 };
        trace.at(self.number)
    }

    /// The same for a packet that follows another in the same instant.
    pub(crate) fn next_start(&self, trace: &Trace) -> u64 {
        trace.at(self.number)
    }

    /// Sends a packet with the next chances; gives the time of the last of them.
    pub(crate) fn transmit(&mut self, trace: &Trace, bytes: u64) -> u64 {
        let total = u128::from(self.used) + u128::from(bytes);
        let size = u128::from(OPPORTUNITY_BYTES);
        // The chance that takes the last byte. One that is full to the brim is done.
        let last = self.number.saturating_add((total.saturating_sub(1) / size) as u64);
        self.number = self.number.saturating_add((total / size) as u64);
        self.used = (total % size) as u64;
        trace.at(last)
    }
}

impl DelayTrace {
    /// Reads a trace of delays; `name` is what [`DelayTrace::name`] gives back.
    ///
    /// # Errors
    /// What is wrong, and in which line.
    pub fn parse(name: &str, text: &str) -> Result<DelayTrace, TraceError> {
        let mut steps: Vec<(u64, u64)> = Vec::new();
        for (line, text) in lines(text)? {
            let wrong = |kind| TraceError { line, kind };
            let (time, delay) = text.split_once(',').unwrap_or((text, ""));
            let ms = milliseconds(time.trim()).ok_or(wrong(TraceErrorKind::NoTime))?;
            let delay = decimal(delay.trim()).ok_or(wrong(TraceErrorKind::NoDelay))?;
            match steps.last() {
                None if ms > 0 => return Err(wrong(TraceErrorKind::LateStart)),
                Some((last, _)) if ms * 1_000_000 <= *last => return Err(wrong(TraceErrorKind::Backwards)),
                _ => steps.push((ms * 1_000_000, delay)),
            }
        }
        Ok(DelayTrace { name: name.to_owned(), steps })
    }

    /// What it was called when it was read.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The delay at a time since the start of the run, both in nanoseconds.
    pub(crate) fn at(&self, now: u64) -> u64 {
        let next = self.steps.partition_point(|(since, _)| *since <= now);
        self.steps.get(next.wrapping_sub(1)).map_or(0, |(_, delay)| *delay)
    }
}

/// Milliseconds with decimals, in nanoseconds.
fn decimal(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = !fraction.is_empty() && fraction.len() <= 6 && fraction.bytes().all(|b| b.is_ascii_digit());
    let fraction: u64 = format!("{fraction:0<6}").parse().ok().filter(|_| digits)?;
    Some(milliseconds(whole)? * 1_000_000 + fraction)
}

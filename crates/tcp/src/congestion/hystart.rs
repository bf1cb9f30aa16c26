//! HyStart++ (RFC 9406): leaves slow start when round-trip times grow.

use std::time::Duration;

/// RFC 9406 §4.3 names and values.
const MIN_RTT_THRESH: Duration = Duration::from_millis(4);
const MAX_RTT_THRESH: Duration = Duration::from_millis(16);
const MIN_RTT_DIVISOR: u32 = 8;
const N_RTT_SAMPLE: u32 = 8;
const CSS_ROUNDS: u32 = 5;
/// By how much slower a window grows in conservative slow start.
pub(crate) const CSS_GROWTH_DIVISOR: u32 = 4;

/// What slow start should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Double each round.
    Fast,
    /// A quarter of that: conservative slow start.
    Conservative,
    /// End here.
    Leave,
}

#[derive(Debug, Default)]
pub(crate) struct HyStart {
    /// The offset whose acknowledgement ends the round.
    round_end: Option<u64>,
    current: Option<Duration>,
    last: Option<Duration>,
    samples: u32,
    /// In conservative slow start: the minimum with which it began, and the rounds since.
    conservative: Option<(Duration, u32)>,
}

impl HyStart {
    /// Takes a measurement with an ACK up to `acked`, when `next` is the next offset to be sent.
    pub(crate) fn on_ack(&mut self, rtt: Option<Duration>, acked: u64, next: u64) -> Pace {
        if let Some(rtt) = rtt {
            self.current = Some(self.current.map_or(rtt, |current| current.min(rtt)));
            self.samples += 1;
        }
        if self.samples >= N_RTT_SAMPLE
            && let Some(current) = self.current
        {
            match (self.conservative, self.last) {
                (Some((baseline, _)), _) if current < baseline => self.conservative = None,
                (None, Some(last)) => {
                    let threshold = (last / MIN_RTT_DIVISOR).clamp(MIN_RTT_THRESH, MAX_RTT_THRESH);
                    if current >= last + threshold {
                        self.conservative = Some((current, 0));
                    }
                }
                _ => {}
            }
        }
        if acked >= *self.round_end.get_or_insert(next) {
            self.round_end = Some(next);
            self.last = self.current.take();
            self.samples = 0;
            if let Some((_, rounds)) = &mut self.conservative {
                *rounds += 1;
                // The round in which it began counts.
                if *rounds >= CSS_ROUNDS {
                    return Pace::Leave;
                }
            }
        }
        if self.conservative.is_some() { Pace::Conservative } else { Pace::Fast }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One round of `count` measurements, with the ACKs from `10 * number` to the end of the round.
    fn round(hystart: &mut HyStart, number: u64, count: u32, rtt_ms: u64) -> Pace {
        let rtt = Duration::from_millis(rtt_ms);
        for _ in 1..count {
            hystart.on_ack(Some(rtt), 10 * number, 10 * number + 10);
        }
        hystart.on_ack(Some(rtt), 10 * number + 10, 10 * number + 20)
    }

    #[test]
    fn rfc9406_4_2_steady_round_trips_stay_in_slow_start() {
        let mut hystart = HyStart::default();

        assert!((0..50).all(|number| round(&mut hystart, number, 20, 40) == Pace::Fast));
    }

    #[test]
    fn rfc9406_4_2_growth_of_an_eighth_turns_conservative_and_five_rounds_later_leaves() {
        let mut hystart = HyStart::default();
        round(&mut hystart, 0, 20, 40);
        assert_eq!(round(&mut hystart, 1, 20, 44), Pace::Fast);
        assert_eq!(round(&mut hystart, 2, 20, 50), Pace::Conservative);

        let paces: Vec<_> = (3..7).map(|number| round(&mut hystart, number, 20, 55)).collect();

        assert_eq!(paces, [Pace::Conservative, Pace::Conservative, Pace::Conservative, Pace::Leave]);
    }

    #[test]
    fn rfc9406_4_2_a_false_alarm_returns_to_slow_start() {
        let mut hystart = HyStart::default();
        round(&mut hystart, 0, 20, 40);
        assert_eq!(round(&mut hystart, 1, 20, 60), Pace::Conservative);

        assert_eq!(round(&mut hystart, 2, 20, 40), Pace::Fast);
    }

    #[test]
    fn rfc9406_4_2_few_measurements_decide_nothing() {
        let mut hystart = HyStart::default();
        round(&mut hystart, 0, 7, 40);

        assert_eq!(round(&mut hystart, 1, 7, 80), Pace::Fast);
    }
}

//! The scenario's own expectations against what was measured.

use crate::scenario::Expect;
use crate::world::nanos;
use report::metrics::PairMetrics;
use report::{Expectation, Metrics, units};
use std::time::Duration;
use trace::{FlowKind, Path};

/// Checks each `Some` of an expectation.
pub(super) fn check(expect: &Expect, metrics: &Metrics) -> Vec<Expectation> {
    let (who, pairs): (String, Vec<&PairMetrics>) = match &expect.pair {
        Some((a, b)) => (format!("{a} and {b}"), metrics.pair(a, b).into_iter().collect()),
        None => (format!("all {} pairs", metrics.pairs.len()), metrics.pairs.iter().collect()),
    };
    let mut checks = Checks { who, pairs, out: Vec::new() };
    match expect.path {
        Some(Some(path)) => checks.path(path),
        Some(None) => checks.unconnected(),
        None => {}
    }
    if let Some(limit) = expect.first_data_within {
        checks.within("first data", limit, |p| p.first_data_ns);
    }
    if let Some(limit) = expect.direct_within {
        checks.within("direct", limit, |p| p.direct_ns);
    }
    if let Some(limit) = expect.lost_at_most {
        checks.at_most("packets lost", limit, |p| Some(lost(p)), |n| n.to_string());
    }
    if let Some(least) = expect.lost_at_least {
        checks.at_least("packets lost", least, |p| Some(lost(p)), |n| n.to_string());
    }
    if let Some(limit) = expect.recovers_within {
        checks.recovers(limit);
    }
    if let Some(limit) = expect.rtt_at_most {
        checks.at_most("median round trip", nanos(limit), rtt, units::duration);
    }
    if let Some(least) = expect.rtt_at_least {
        checks.at_least("median round trip", nanos(least), rtt, units::duration);
    }
    if let Some(least) = expect.goodput_at_least_bps {
        checks.goodput(least);
    }
    if let Some(most) = expect.goodput_at_most_bps {
        checks.at_most("goodput", most, fastest, units::rate);
    }
    if let Some(completes) = expect.completes {
        checks.completes(completes);
    }
    checks.out
}

struct Checks<'a> {
    who: String,
    pairs: Vec<&'a PairMetrics>,
    out: Vec<Expectation>,
}

impl Checks<'_> {
    /// Judges every pair; the one that is worst is shown.
    fn judge(&mut self, words: &str, each: impl Fn(&PairMetrics) -> (bool, u64, String)) {
        let words = format!("{}: {words}", self.who);
        let judged: Vec<_> = self.pairs.iter().map(|pair| (each(pair), pair)).collect();
        let failed = judged.iter().filter(|((held, ..), _)| !held).count();
        let worst = judged.iter().max_by_key(|((held, badness, _), _)| (!held, *badness));
        let seen = match worst {
            None => "no traffic between them".to_owned(),
            Some(((_, _, seen), _)) if judged.len() == 1 => seen.clone(),
            Some(((held, _, seen), pair)) => {
                let worst = format!("{} and {}: {seen}", pair.a, pair.b);
                if *held { format!("at worst {worst}") } else { format!("{failed} not, such as {worst}") }
            }
        };
        self.out.push(Expectation { words, passed: !judged.is_empty() && failed == 0, seen });
    }

    fn path(&mut self, path: Path) {
        self.judge(path.as_str(), |pair| {
            let seen = match pair.path() {
                Some(path) => path.as_str().to_owned(),
                None => "no path".to_owned(),
            };
            (pair.path_a == Some(path) && pair.path_b == Some(path), 0, seen)
        });
    }

    fn unconnected(&mut self) {
        self.judge("no path", |pair| match pair.first_data_ns {
            None => (true, 0, "nothing was exchanged".to_owned()),
            Some(ns) => (false, u64::MAX - ns, format!("first data after {}", units::duration(ns))),
        });
    }

    fn within(&mut self, what: &str, limit: Duration, value: impl Fn(&PairMetrics) -> Option<u64>) {
        self.judge(&format!("{what} within {}", units::duration(nanos(limit))), |pair| match value(pair) {
            Some(ns) => (ns <= nanos(limit), ns, units::duration(ns)),
            None => (false, u64::MAX, "never".to_owned()),
        });
    }

    fn at_most(
        &mut self,
        what: &str,
        limit: u64,
        value: impl Fn(&PairMetrics) -> Option<u64>,
        show: impl Fn(u64) -> String,
    ) {
        self.judge(&format!("{what} at most {}", show(limit)), |pair| match value(pair) {
            Some(n) => (n <= limit, n, show(n)),
            None => (false, u64::MAX, "not measured".to_owned()),
        });
    }

    fn at_least(
        &mut self,
        what: &str,
        least: u64,
        value: impl Fn(&PairMetrics) -> Option<u64>,
        show: impl Fn(u64) -> String,
    ) {
        self.judge(&format!("{what} at least {}", show(least)), |pair| match value(pair) {
            Some(n) => (n >= least, u64::MAX - n, show(n)),
            None => (false, u64::MAX, "not measured".to_owned()),
        });
    }

    fn recovers(&mut self, limit: Duration) {
        self.judge(&format!("recovers within {}", units::duration(nanos(limit))), |pair| {
            match pair.longest_recovery_ns() {
                None => (false, u64::MAX, "nothing happened that it could recover from".to_owned()),
                Some(None) => (false, u64::MAX, "traffic did not resume".to_owned()),
                Some(Some(ns)) => (ns <= nanos(limit), ns, units::duration(ns)),
            }
        });
    }

    fn goodput(&mut self, least: u64) {
        self.judge(&format!("goodput at least {}", units::rate(least)), |pair| {
            let bulk = pair.flows.iter().filter(|f| f.kind == FlowKind::Bulk);
            match bulk.map(|f| f.goodput_bps.unwrap_or(0)).min() {
                Some(bps) => (bps >= least, u64::MAX - bps, units::rate(bps)),
                None => (false, u64::MAX, "no bulk transfer".to_owned()),
            }
        });
    }

    fn completes(&mut self, expected: bool) {
        let words = if expected { "transfers complete" } else { "transfers do not complete" };
        self.judge(words, |pair| {
            let bulk: Vec<_> = pair.flows.iter().filter(|f| f.kind == FlowKind::Bulk).collect();
            let done = bulk.iter().filter(|f| f.complete == Some(true)).count();
            let held = !bulk.is_empty() && (done == bulk.len()) == expected;
            (held, (bulk.len() - done) as u64, format!("{done} of {} complete", bulk.len()))
        });
    }
}

fn lost(pair: &PairMetrics) -> u64 {
    pair.paths.iter().map(|(_, p)| p.lost).sum::<u64>() + pair.pathless_lost
}

/// The fastest of its transfers.
fn fastest(pair: &PairMetrics) -> Option<u64> {
    let bulk = pair.flows.iter().filter(|f| f.kind == FlowKind::Bulk);
    bulk.filter_map(|f| f.goodput_bps).max()
}

/// The median on the path that carried most echoes.
fn rtt(pair: &PairMetrics) -> Option<u64> {
    pair.paths.iter().max_by_key(|(_, p)| p.echoes).and_then(|(_, p)| p.rtt_p50_ns)
}

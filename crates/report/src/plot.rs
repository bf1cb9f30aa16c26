//! Static SVG whose positions are percentages, so that one drawing fits every width with text of one size.

use crate::metrics::Gap;
use crate::report::Via;
use crate::timeline::{Action, Span};
use crate::units;
use maud::{Markup, html};
use trace::Path;

/// Where a value stands between the ends of an axis.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axis {
    scale: Scale,
    low: u64,
    high: u64,
    step: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    Linear,
    Log,
}

impl Axis {
    /// From 0 to a round number at or above `max`, in at most five steps of 1, 2 or 5 times a power of ten.
    pub(crate) fn linear(max: u64) -> Axis {
        let max = max.max(1);
        let mut step = 1u64;
        'found: loop {
            for factor in [1, 2, 5] {
                let next = step.saturating_mul(factor);
                if max.div_ceil(next) <= 5 {
                    step = next;
                    break 'found;
                }
            }
            step = step.saturating_mul(10);
        }
        Axis { scale: Scale::Linear, low: 0, high: max.div_ceil(step).saturating_mul(step), step }
    }

    /// From a power of ten at or below `min` to one at or above `max`.
    pub(crate) fn log(min: u64, max: u64) -> Axis {
        let low = 10u64.pow(min.max(1).ilog10());
        let mut high = low.saturating_mul(10);
        while high < max && high < u64::MAX {
            high = high.saturating_mul(10);
        }
        Axis { scale: Scale::Log, low, high, step: 10 }
    }

    /// The whole of a run, without rounding up.
    pub(crate) fn time(end_ns: u64) -> Axis {
        Axis { high: end_ns.max(1), ..Axis::linear(end_ns) }
    }

    /// Ten-thousandths of the axis's length.
    fn position(&self, value: u64) -> u64 {
        let value = value.clamp(self.low, self.high);
        let (part, whole) = match self.scale {
            Scale::Linear => (u128::from(value - self.low), u128::from(self.high - self.low)),
            Scale::Log => (log2(value) - log2(self.low), log2(self.high) - log2(self.low)),
        };
        u64::try_from((part * 10_000).checked_div(whole).unwrap_or(0)).unwrap_or(10_000)
    }

    fn at(&self, value: u64) -> String {
        percent(self.position(value))
    }

    fn ticks(&self) -> Vec<u64> {
        let next = |tick: &u64| match self.scale {
            Scale::Linear => tick.checked_add(self.step),
            Scale::Log => tick.checked_mul(self.step),
        };
        std::iter::successors(Some(self.low), next).take_while(|tick| *tick <= self.high).take(24).collect()
    }
}

/// Millionths of the logarithm to base 2, straight between powers of two: monotonic, and exact enough for a pixel.
fn log2(value: u64) -> u128 {
    let value = value.max(1);
    let whole = value.ilog2();
    let rest = u128::from(value) - (1u128 << whole);
    u128::from(whole) * 1_000_000 + ((rest * 1_000_000) >> whole)
}

fn percent(ten_thousandths: u64) -> String {
    format!("{}.{:02}%", ten_thousandths / 100, ten_thousandths % 100)
}

/// What a mark stands for; each has its own shape as well as its own colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    Via(Via),
    FirstData,
}

impl Mark {
    fn class(self) -> &'static str {
        match self {
            Mark::Via(Via::Path(path)) => fill(Some(path)),
            Mark::Via(Via::Cut) => "f-cut",
            Mark::FirstData => "f-ink",
        }
    }

    /// With a ring around it that parts it from what it lies on; what is hollow has a line already.
    fn ringed(self) -> String {
        let ring = if self == Mark::Via(Via::Cut) { "" } else { " s-ring" };
        format!("{}{ring}", self.class())
    }

    fn shape(self) -> &'static str {
        match self {
            Mark::Via(Via::Path(Path::Direct)) => "M-6 0a6 6 0 1 0 12 0a6 6 0 1 0 -12 0z",
            Mark::Via(Via::Path(Path::Relay)) => "M-5.5-5.5h11v11h-11z",
            // A frame, large enough to be seen around a mark of nearly the same value.
            Mark::Via(Via::Cut) => "M-7.5-7.5h15v15h-15z",
            Mark::Via(Via::Path(Path::Lan)) => "M0-7l7 7l-7 7l-7-7z",
            Mark::FirstData => "M0-6l6 10h-12z",
        }
    }
}

/// A piece of a silent stretch by itself, for a legend.
pub(crate) fn silence_key() -> Markup {
    html! {
        svg width="22" height="12" aria-hidden="true" {
            rect class="f-direct" width="22" height="12" rx="2" {}
            rect fill="url(#hatch)" width="22" height="12" {}
        }
    }
}

/// The class that fills a shape with a path's colour.
pub(crate) fn fill(path: Option<Path>) -> &'static str {
    match path {
        Some(Path::Direct) => "f-direct",
        Some(Path::Relay) => "f-relay",
        Some(Path::Lan) => "f-lan",
        None => "f-none",
    }
}

/// A mark by itself, for a legend.
pub(crate) fn key(mark: Mark) -> Markup {
    html! {
        svg width="18" height="18" viewBox="-9 -9 18 18" aria-hidden="true" { path class=(mark.class()) d=(mark.shape()) {} }
    }
}

/// The lines of an axis, as tall as their row.
fn grid(axis: &Axis) -> Markup {
    html! {
        @for tick in axis.ticks() {
            line class="s-grid" x1=(axis.at(tick)) x2=(axis.at(tick)) y1="0" y2="100%" {}
        }
    }
}

/// One row of a dot plot: the marks on a line that joins them.
pub(crate) fn dots(axis: &Axis, marks: &[(Mark, u64)], words: &str) -> Markup {
    let low = marks.iter().map(|(_, value)| *value).min().unwrap_or(0);
    let high = marks.iter().map(|(_, value)| *value).max().unwrap_or(0);
    html! {
        div.fill style="min-height:30px" {
            svg role="img" aria-label=(words) {
                (grid(axis))
                line class="s-join" x1=(axis.at(low)) x2=(axis.at(high)) y1="50%" y2="50%" {}
                @for (mark, value) in marks {
                    svg x=(axis.at(*value)) y="50%" overflow="visible" {
                        path class=(mark.ringed()) d=(mark.shape()) {}
                    }
                }
            }
        }
    }
}

/// One row of a bar plot: a bar for each value, one above the other.
pub(crate) fn bars(axis: &Axis, marks: &[(Mark, u64)], words: &str) -> Markup {
    let height = marks.len() * 12;
    html! {
        div.fill style=(format!("min-height:{}px", height + 12)) {
            svg role="img" aria-label=(words) {
                (grid(axis))
                svg y="50%" overflow="visible" {
                    @for (n, (mark, value)) in marks.iter().enumerate() {
                        @let top = 2 * i64::try_from(n * 6).unwrap_or(0) - i64::try_from(height / 2).unwrap_or(0) + 1;
                        // The line of a hollow bar stands out by half of its width.
                        @let (y, height) = if *mark == Mark::Via(Via::Cut) { (top + 1, 8) } else { (top, 10) };
                        rect class=(mark.class()) x="0" y=(y) width=(axis.at(*value)) height=(height) rx="2" {}
                    }
                }
            }
        }
    }
}

/// The numbers below a plot.
pub(crate) fn scale(axis: &Axis, words: impl Fn(u64) -> String) -> Markup {
    let ticks = axis.ticks();
    html! {
        svg.plot height="18" aria-hidden="true" {
            @for tick in &ticks {
                @let anchor = match axis.position(*tick) { 0 => "start", 9_600.. => "end", _ => "middle" };
                text x=(axis.at(*tick)) y="13" text-anchor=(anchor) { @if *tick == 0 { "0" } @else { (words(*tick).replace(".000 ", " ").replace(".0 ", " ")) } }
            }
        }
    }
}

/// A strip of paths over time, with silences hatched and actions as lines across it.
pub(crate) fn strip(axis: &Axis, spans: &[Span], gaps: &[Gap], actions: &[Action], words: &str) -> Markup {
    html! {
        svg.plot height="24" role="img" aria-label=(words) {
            @for span in spans {
                // A change of path that lasts an instant still shows.
                @let width = (axis.position(span.to_ns) - axis.position(span.from_ns)).max(15);
                rect class=(fill(span.path)) x=(axis.at(span.from_ns)) y="3" width=(percent(width)) height="18" {
                    title { (crate::report::path_words(span.path)) ", " (units::moment(span.from_ns)) " to " (units::moment(span.to_ns)) }
                }
            }
            @for gap in gaps {
                @let width = (axis.position(gap.to_ns) - axis.position(gap.from_ns)).max(30);
                rect fill="url(#hatch)" x=(axis.at(gap.from_ns)) y="3" width=(percent(width)) height="18" {
                    title { (gap.host) " heard nothing for " (units::duration(gap.length_ns())) }
                }
            }
            @for action in actions {
                line class="s-act" x1=(axis.at(action.at_ns)) x2=(axis.at(action.at_ns)) y1="0" y2="24" {}
            }
        }
    }
}

/// The numbers of the actions, above the strips. One that would overlap the one before it is left out.
pub(crate) fn action_numbers(axis: &Axis, actions: &[Action]) -> Markup {
    let mut last = None;
    let shown: Vec<(usize, &Action)> = actions
        .iter()
        .enumerate()
        .filter(|(_, action)| {
            let at = axis.position(action.at_ns);
            let fits = last.is_none_or(|last| at >= last + 250);
            if fits {
                last = Some(at);
            }
            fits
        })
        .collect();
    html! {
        svg.plot height="14" aria-hidden="true" {
            @for (n, action) in shown { text x=(axis.at(action.at_ns)) y="11" text-anchor="middle" { (n + 1) } }
        }
    }
}

/// The pattern of a silence, used by every strip of a page.
pub(crate) fn hatch() -> Markup {
    html! {
        svg width="0" height="0" style="position:absolute" aria-hidden="true" {
            defs {
                pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)" {
                    line class="s-hatch" x1="0" y1="0" x2="0" y2="6" {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_on_a_round_number() {
        let ticks = |max| Axis::linear(max).ticks();
        assert_eq!(ticks(120), [0, 50, 100, 150]);
        assert_eq!(ticks(100), [0, 20, 40, 60, 80, 100]);
        assert_eq!(ticks(0), [0, 1]);
        assert_eq!(Axis::log(61, 2_000).ticks(), [10, 100, 1_000, 10_000]);
    }

    #[test]
    fn a_logarithm_never_falls_and_hits_its_ends() {
        let axis = Axis::log(10, 10_000);
        let positions: Vec<u64> = (1..=10_500).map(|value| axis.position(value)).collect();
        assert!(positions.is_sorted());
        assert_eq!((axis.position(10), axis.position(10_000)), (0, 10_000));
        assert!(axis.position(100).abs_diff(3_333) < 200);
    }

    #[test]
    fn the_largest_value_is_drawn_like_any_other() {
        assert_eq!(Axis::linear(u64::MAX).position(u64::MAX), 10_000);
        assert_eq!(Axis::log(1, u64::MAX).position(u64::MAX), 10_000);
        assert_eq!(Axis::time(0).position(7), 10_000);
        assert_eq!(percent(3_725), "37.25%");
    }
}

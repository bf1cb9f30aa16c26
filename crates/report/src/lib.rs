//! From the log of a run to numbers, a story and pages.
//!
//! Every function here is a pure fold over [`trace::Record`]s or over what such a fold made: no clock, no file, no
//! network, no float. The same log gives the same bytes, so a report can be checked in and compared.
//!
//! ```
//! use report::{Fold, PathTimeline};
//! # let records: [trace::Record; 0] = [];
//! let mut fold = Fold::default();
//! let mut timeline = PathTimeline::default();
//! for record in &records {
//!     fold.push(record);
//!     timeline.push(record);
//! }
//! let metrics = fold.finish();
//! # assert!(metrics.pairs.is_empty());
//! ```
//!
//! - [`Metrics`]: per pair of hosts the final path, time to first data and to direct, and per path round trip, loss and
//!   goodput; silences, and how long it took to recover from each action of the timeline.
//! - [`Summary`]: the schema of `summary.json`. Whether an expectation held is for the judge to say, not for this crate.
//! - [`PathTimeline`]: which path each pair was on, when.
//! - [`explain()`]: the story of a run in plain sentences: what was learned, tried and dropped, and why it ended so.
//! - [`Matrix`]: NAT types against each other, as a grid for a terminal.
//! - [`Report`]: Markdown, and one HTML page that needs nothing from elsewhere.
//!
//! Figures count what programs inside the tunnel saw: a packet is lost if its program never got it, whatever the reason.
//! Where a page holds direct against relayed, the relay figures of a pair that went direct are those of a second run in which
//! it could not ([`PairSummary::relayed`]): its own few packets on the relay would say little.
//!
//! Out of scope: judging, running, reading files, and printing to a terminal.

pub mod explain;
mod fold;
#[cfg(test)]
mod fold_tests;
mod html;
mod markdown;
pub mod matrix;
pub mod metrics;
mod plot;
mod report;
#[cfg(test)]
mod report_tests;
pub mod summary;
#[cfg(test)]
mod testlog;
pub mod timeline;
pub mod units;

pub use explain::explain;
pub use fold::Fold;
pub use matrix::{Cell, Matrix};
pub use metrics::{Metrics, PerPath};
pub use report::Report;
pub use summary::{Expectation, PairSummary, ScenarioSummary, Summary};
pub use timeline::PathTimeline;

//! Two devices against each other in virtual time, a test per requirement of the paper.

#![expect(clippy::unwrap_used, reason = "a failed expectation ends a test")]

mod basics;
mod crossing;
mod hostile;
mod loss;
mod rotation;
mod timers;
mod wire;

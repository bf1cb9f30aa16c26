//! The turmoil world: async shells on hosts of turmoil.

#[path = "../common/mod.rs"]
mod common;

mod crash;
mod direct;
mod errors;
mod worlds;

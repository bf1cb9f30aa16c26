//! Two devices against each other in virtual time.

mod basics;
mod wire;

//! The coordination server with its records in a file.

use coord::state::Write;
use coord_store::Store;
use program::{CoordinatorProgram, Input, Output, Program};
use std::time::{Duration, Instant};

/// How long to wait before a write that failed is tried again: the disk may have space by then.
const AGAIN: Duration = Duration::from_secs(5);

/// A server whose records are written, and on the disk, before anybody hears of them.
pub(super) struct StoredCoordinator {
    pub(super) program: CoordinatorProgram,
    store: Store,
    /// A write that failed, and when it is tried again.
    failed: Option<(Write, Instant)>,
}

impl StoredCoordinator {
    pub(super) fn new(program: CoordinatorProgram, store: Store) -> StoredCoordinator {
        StoredCoordinator { program, store, failed: None }
    }

    fn store(&mut self, now: Instant) {
        let due = self.failed.take_if(|(_, at)| *at <= now).map(|(write, _)| write);
        if self.failed.is_some() {
            return;
        }
        let mut next = due.or_else(|| self.program.poll_store());
        while let Some(write) = next {
            if let Err(error) = self.store.write(&write) {
                tracing::error!(%error, "cannot store; nobody new gets in until it works");
                self.failed = Some((write, now + AGAIN));
                return;
            }
            self.program.stored(write.id, now);
            next = self.program.poll_store();
        }
    }
}

impl Program for StoredCoordinator {
    fn udp_ports(&self) -> Vec<u16> {
        self.program.udp_ports()
    }

    fn tcp_ports(&self) -> Vec<u16> {
        self.program.tcp_ports()
    }

    fn handle(&mut self, input: Input<'_>, now: Instant) {
        self.program.handle(input, now);
        self.store(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.program.handle_timeout(now);
        self.store(now);
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let again = self.failed.as_ref().map(|(_, at)| (*at, "a write that failed"));
        self.program.poll_timeout().into_iter().chain(again).min_by_key(|(at, _)| *at)
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.program.poll_output()
    }
}

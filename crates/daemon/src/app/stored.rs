//! The coordination server with its records in a file.

use crate::Handle;
use coord::state::Write;
use coord_store::{Store, StoreError};
use program::{CoordinatorProgram, Input, Output, Program, Secured};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How long to wait before a write that failed is tried again: the disk may have space by then.
const AGAIN: Duration = Duration::from_secs(5);

/// A server whose records are written, and on the disk, before anybody hears of them.
///
/// It goes on while [`write_all`] waits for the disk, so that what comes meanwhile goes into the next write together.
pub(super) struct StoredCoordinator {
    pub(super) program: CoordinatorProgram,
    writes: mpsc::UnboundedSender<Write>,
    /// A write that failed, and when it is tried again.
    failed: Option<(Write, Instant)>,
}

impl StoredCoordinator {
    /// The server, and what is to be given to [`write_all`].
    pub(super) fn new(program: CoordinatorProgram) -> (StoredCoordinator, mpsc::UnboundedReceiver<Write>) {
        let (writes, todo) = mpsc::unbounded_channel();
        (StoredCoordinator { program, writes, failed: None }, todo)
    }

    fn store(&mut self, now: Instant) {
        let due = self.failed.take_if(|(_, at)| *at <= now).map(|(write, _)| write);
        if self.failed.is_none()
            // One at a time: the server has no other before this one is stored.
            && let Some(write) = due.or_else(|| self.program.poll_store())
        {
            // The other end is there as long as the process.
            let _ = self.writes.send(write);
        }
    }

    fn wrote(&mut self, write: Write, result: Result<(), StoreError>, now: Instant) {
        match result {
            Ok(()) => self.program.stored(write.id, now),
            Err(error) => {
                tracing::error!(%error, "cannot store; nobody new gets in until it works");
                self.failed = Some((write, now + AGAIN));
            }
        }
        self.store(now);
    }
}

/// Writes on a thread of its own and tells the server, until that has ended.
pub(super) async fn write_all(
    mut store: Store,
    mut writes: mpsc::UnboundedReceiver<Write>,
    server: Handle<Secured<StoredCoordinator>>,
) {
    while let Some(write) = writes.recv().await {
        let written = tokio::task::spawn_blocking(move || {
            let result = store.write(&write);
            (store, write, result)
        });
        let Ok((back, write, result)) = written.await else { return };
        store = back;
        if server.tell(move |server, now| server.program_mut().wrote(write, result, now)).await.is_err() {
            return;
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

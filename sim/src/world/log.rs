//! Where a world's events and packets go.

use crate::packet::Packet;
use std::collections::BTreeMap;
use std::io::Write;
use trace::pcap::{Capture, InterfaceId};
use trace::{Event, Record};

/// The log of a run, kept in memory until the judge has read it.
#[derive(Debug, Default)]
pub struct Log {
    enabled: bool,
    records: Vec<Record>,
}

impl Log {
    /// A log that keeps events, or one that drops them unseen.
    pub fn new(enabled: bool) -> Log {
        Log { enabled, records: Vec::new() }
    }

    /// Whether anybody will read what is put here.
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// Adds an event.
    pub fn push(&mut self, t: u64, event: Event) {
        if self.enabled {
            if is_busy(&event) {
                tracing::trace!(t_ns = t, ?event);
            } else {
                tracing::debug!(t_ns = t, ?event);
            }
            self.records.push(Record { t, event });
        }
    }

    /// All events so far.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Takes all events out.
    pub fn into_records(self) -> Vec<Record> {
        self.records
    }
}

/// Events that come with every packet, and so by the thousand.
fn is_busy(event: &Event) -> bool {
    matches!(
        event,
        Event::Sent { .. }
            | Event::Translated { .. }
            | Event::Delivered { .. }
            | Event::Timer { .. }
            | Event::AppSent { .. }
            | Event::AppReceived { .. }
            | Event::Echo { .. }
            | Event::BulkReceived { .. }
    )
}

/// One pcapng file per interface, in memory.
#[derive(Default)]
pub struct Captures {
    files: BTreeMap<String, (Capture<Vec<u8>>, InterfaceId)>,
    buffer: Vec<u8>,
}

impl Captures {
    /// Records a packet as it passes an interface.
    pub fn packet(&mut self, interface: &str, t_ns: u64, packet: &Packet) -> std::io::Result<()> {
        if !self.files.contains_key(interface) {
            let mut capture = Capture::new(Vec::new())?;
            let id = capture.interface(interface)?;
            self.files.insert(interface.to_owned(), (capture, id));
        }
        self.buffer.clear();
        packet.encode(&mut self.buffer);
        if let Some((capture, id)) = self.files.get_mut(interface) {
            capture.packet(*id, t_ns, &self.buffer)?;
        }
        Ok(())
    }

    /// The files: interface name and bytes.
    pub fn finish(self) -> impl Iterator<Item = (String, Vec<u8>)> {
        self.files.into_iter().map(|(name, (capture, _))| (name, capture.into_inner()))
    }

    /// Writes `INTERFACE.pcapng` for each interface into a folder.
    pub fn write_to(self, folder: &std::path::Path) -> std::io::Result<()> {
        for (name, bytes) in self.finish() {
            std::fs::File::create(folder.join(format!("{name}.pcapng")))?.write_all(&bytes)?;
        }
        Ok(())
    }
}

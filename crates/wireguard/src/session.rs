//! One pair of transport keys (paper §5.4.5, §5.4.6).

use crate::mac::Mac1;
use crate::message::{self, DATA_HEADER_LEN, TAG_LEN};
use crate::replay::ReplayWindow;
use crate::{Error, ip_padding};
use bytes::Bytes;
use snow::StatelessTransportState;
use std::time::{Duration, Instant};

/// REKEY-AFTER-MESSAGES, paper §6.1.
pub(crate) const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// REJECT-AFTER-MESSAGES, paper §6.1: 2^64 - 2^13 - 1.
pub(crate) const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
/// REKEY-AFTER-TIME, paper §6.1.
pub(crate) const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);
/// REJECT-AFTER-TIME, paper §6.1.
pub(crate) const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);

/// Which handshake a session comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Our attempt of this number.
    Ours { attempt: u64 },
    /// The peer's initiation. `crossed` is our own attempt that was on its way when the peer's arrived.
    Theirs { crossed: Option<u64> },
}

/// Keys, counters and replay window of one completed handshake.
pub(crate) struct Session {
    pub(crate) local: u32,
    pub(crate) remote: u32,
    pub(crate) origin: Origin,
    /// Position in the peer's order of sessions: larger is newer.
    pub(crate) serial: u64,
    pub(crate) created: Instant,
    /// Whether we may send: at once for the initiator, for the responder from the first authentic packet
    /// on, which proves that the initiator holds the keys (paper §5.4.5).
    pub(crate) confirmed: bool,
    /// mac1 of the response that made this session, for a cookie reply to it.
    pub(crate) mac1: Option<Mac1>,
    transport: StatelessTransportState,
    next_counter: u64,
    window: ReplayWindow,
}

impl Session {
    pub(crate) fn new(
        (local, remote): (u32, u32),
        origin: Origin,
        serial: u64,
        transport: StatelessTransportState,
        mac1: Option<Mac1>,
        now: Instant,
    ) -> Session {
        Session {
            local,
            remote,
            origin,
            serial,
            created: now,
            confirmed: matches!(origin, Origin::Ours { .. }),
            mac1,
            transport,
            next_counter: 0,
            window: ReplayWindow::new(),
        }
    }

    pub(crate) fn expires(&self) -> Instant {
        self.created + REJECT_AFTER_TIME
    }

    pub(crate) fn is_ours(&self) -> bool {
        matches!(self.origin, Origin::Ours { .. })
    }

    /// Paper §6.2: whether something may still be sent.
    pub(crate) fn can_send(&self, now: Instant) -> bool {
        self.confirmed && now < self.expires() && self.next_counter < REJECT_AFTER_MESSAGES
    }

    pub(crate) fn sent(&self) -> u64 {
        self.next_counter
    }

    /// Encrypts a packet, padded to 16 bytes; an empty one makes a keepalive. `scratch` is reused from call to call.
    pub(crate) fn seal(&mut self, packet: &[u8], scratch: &mut Vec<u8>) -> Result<Bytes, snow::Error> {
        scratch.clear();
        scratch.extend_from_slice(packet);
        scratch.resize(packet.len() + ip_padding(packet), 0);
        let counter = self.next_counter;
        let mut out = message::data(self.remote, counter, scratch.len() + TAG_LEN);
        self.transport.write_message(counter, scratch, &mut out[DATA_HEADER_LEN..])?;
        self.next_counter += 1;
        Ok(out.into())
    }

    /// Decrypts what follows the header of a data message; the padding is still there.
    pub(crate) fn open(&mut self, counter: u64, sealed: &[u8], now: Instant) -> Result<Vec<u8>, Error> {
        if now >= self.expires() || counter >= REJECT_AFTER_MESSAGES {
            return Err(Error::Expired);
        }
        if !self.window.is_new(counter) {
            return Err(Error::Replay);
        }
        let mut out = vec![0; sealed.len()];
        let len = self.transport.read_message(counter, sealed, &mut out).map_err(|_| Error::Forged)?;
        out.truncate(len);
        self.window.accept(counter);
        Ok(out)
    }

    #[cfg(test)]
    pub(crate) fn skip_to(&mut self, counter: u64) {
        self.next_counter = counter;
    }
}

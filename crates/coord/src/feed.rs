//! The client's end of a stream on which the server goes on telling: what machines and relays have in common.

use std::time::Instant;

use crate::channel::{Channel, Incoming};
use crate::wire::{ToServer, frame};
use crate::{DEAD_AFTER, Error, HANDSHAKE_WITHIN, KEEP_ALIVE, MAP_WITHIN};

pub(crate) struct Feed {
    pub(crate) channel: Channel,
    /// The handshake is done.
    pub(crate) opened: bool,
    /// What the stream is for has come, or the word that it will take a while.
    pub(crate) answered: bool,
    /// What that is.
    wanted: &'static str,
    since: Instant,
    heard: Instant,
    keep_alive_at: Instant,
}

impl Feed {
    pub(crate) fn new(channel: Channel, wanted: &'static str, now: Instant) -> Feed {
        let keep_alive_at = now + KEEP_ALIVE;
        Feed { channel, opened: false, answered: false, wanted, since: now, heard: now, keep_alive_at }
    }

    /// The next thing in what was fed to the channel.
    pub(crate) fn next(&mut self, now: Instant) -> Result<Option<Incoming>, Error> {
        let before = self.channel.records();
        let next = self.channel.next()?;
        if self.channel.records() > before {
            self.heard = now;
        }
        self.opened |= matches!(next, Some(Incoming::Opened { .. }));
        match next {
            // Only a server's end says so.
            Some(Incoming::Served) => Err(Error::Http),
            next => Ok(next),
        }
    }

    /// Sends a keep-alive, if it is time; fails if the stream is to be given up.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        if let Some((_, what)) = self.ends().find(|(at, _)| *at <= now) {
            return Err(Error::TimedOut(what));
        }
        if now >= self.keep_alive_at {
            self.keep_alive_at = now + KEEP_ALIVE;
            if self.opened && self.channel.backlog() == 0 {
                self.channel.push(frame(&ToServer::KeepAlive));
            }
        }
        Ok(())
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.ends().chain([(self.keep_alive_at, "coord keep-alive")]).min_by_key(|(at, _)| *at)
    }

    /// When the stream is given up, and for want of what.
    fn ends(&self) -> impl Iterator<Item = (Instant, &'static str)> {
        let silence = (self.heard + DEAD_AFTER, "nothing heard from the server");
        let handshake = (!self.opened).then(|| (self.since + HANDSHAKE_WITHIN, "coord handshake"));
        let wanted = (!self.answered).then(|| (self.since + MAP_WITHIN, self.wanted));
        [Some(silence), handshake, wanted].into_iter().flatten()
    }
}

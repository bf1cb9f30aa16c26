//! The links between the relays of a region: this relay is a client of each of the others.

use crate::upstream::{Dialer, Told, Upstream};
use crate::{ConnId, Input, Output};
use derp::server::LinkId;
use derp::{Class, Client, ClientConfig, ClientEvent, MeshKey, PrivateKey, PublicKey, Server};
use rand::Rng;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use trace::{Event, Name};

/// The longest that another relay may ask to be left alone for, as of peers.
const RESTART_MAX: Duration = Duration::from_secs(30);
/// A relay that does not know the region's secret hangs up as soon as it is asked who is there. A link that lasts longer than
/// that takes, or on which somebody is told of, is one.
const STEADY_AFTER: Duration = Duration::from_secs(1);

/// Another relay of the region.
#[derive(Debug)]
pub struct Sibling {
    /// Its name, for the log and for the `Host` field.
    pub name: Name,
    /// Its key: no other server is told the region's secret.
    pub key: PublicKey,
    /// Where it is.
    pub at: Upstream,
}

struct Link {
    name: Name,
    dialer: Dialer,
    client: Client,
    /// The handshake is over; from then on it is taken for a link.
    steady_at: Option<Instant>,
    /// Whether the last that was logged is that it works.
    is_up: bool,
    /// Whether anything was logged since it last worked.
    told: bool,
    /// Whether it named more clients than it may, since it came about.
    is_full: bool,
}

impl Link {
    /// The other relay takes this one for one of its region. Words for the log, if that is news.
    fn works(&mut self) -> Option<String> {
        self.steady_at.take()?;
        self.dialer.works();
        (self.is_up, self.told) = (true, false);
        Some(format!("link to relay {}: up", self.name))
    }
}

/// All links of a relay.
pub(crate) struct Mesh {
    /// The relay's name.
    name: Name,
    links: Vec<Link>,
    out: VecDeque<Output>,
}

impl Mesh {
    /// `key` is the relay's own: by it the others know whom they talk to.
    pub(crate) fn new(
        name: Name,
        key: &PrivateKey,
        secret: &MeshKey,
        siblings: Vec<Sibling>,
        now: Instant,
    ) -> Mesh {
        let link = |Sibling { name, key: theirs, mut at }: Sibling| {
            let mut seed = [0; 32];
            at.rng.fill_bytes(&mut seed);
            let config = ClientConfig {
                mesh_key: Some(secret.clone()),
                server_key: Some(theirs),
                fast_start: true,
                ..ClientConfig::new(key.clone(), name.as_ref())
            };
            let client = Client::new(config, ChaCha12Rng::from_seed(seed), now);
            Link {
                name,
                dialer: Dialer::new(at, now),
                client,
                steady_at: None,
                is_up: false,
                told: false,
                is_full: false,
            }
        };
        Mesh { name, links: siblings.into_iter().map(link).collect(), out: VecDeque::new() }
    }

    /// Something happened on a connection; `false` if that is none of a link.
    pub(crate) fn handle(
        &mut self,
        conn: ConnId,
        input: &Input<'_>,
        server: &mut Server,
        now: Instant,
    ) -> bool {
        let Some(n) = self.links.iter().position(|link| link.dialer.owns(conn)) else { return false };
        let told = self.links[n].dialer.handle(input, now);
        self.told(n, &told, server, now);
        true
    }

    fn told(&mut self, n: usize, told: &Told, server: &mut Server, now: Instant) {
        let link = &mut self.links[n];
        if told.opened {
            link.client.connected(now);
            link.is_full = false;
        }
        let mut lost = told.lost.clone();
        if !told.data.is_empty()
            && let Err(error) = link.client.handle_stream(&told.data, now)
            && lost.is_none()
        {
            lost = link.dialer.hang_up(&error.to_string(), now).lost;
        }
        let dead = self.events(n, server, now);
        let link = &mut self.links[n];
        if lost.is_none() && dead {
            lost = link.dialer.hang_up("no answer", now).lost;
        }
        match lost {
            Some(why) => self.lost(n, &why, server, now),
            None => link.dialer.write(|space| link.client.poll_transmit(space)),
        }
    }

    /// What the other relay told; `true` if it is silent.
    fn events(&mut self, n: usize, server: &mut Server, now: Instant) -> bool {
        let (link, id) = (&mut self.links[n], LinkId(n as u32));
        let mut dead = false;
        while let Some(event) = link.client.poll_event() {
            match event {
                ClientEvent::Ready { .. } => link.steady_at = Some(now + STEADY_AFTER),
                ClientEvent::PeerPresent { key, .. } => {
                    if let Err(full) = server.mesh_present(id, key)
                        && !std::mem::replace(&mut link.is_full, true)
                    {
                        let what = format!("link to relay {}: {full}", link.name);
                        self.out.push_back(warning(&self.name, what));
                    }
                    self.out.extend(link.works().map(|what| warning(&self.name, what)));
                }
                ClientEvent::PeerGone { key, .. } => server.mesh_gone(id, key),
                ClientEvent::Restarting { reconnect_in, .. } => {
                    link.dialer.hold_off(now + reconnect_in.min(RESTART_MAX));
                }
                ClientEvent::Dead { .. } => dead = true,
                _ => {}
            }
        }
        dead
    }

    fn lost(&mut self, n: usize, why: &str, server: &mut Server, now: Instant) {
        let link = &mut self.links[n];
        link.client.closed(now);
        server.mesh_down(LinkId(n as u32));
        let why = match link.steady_at.take() {
            Some(_) => "closed right after the handshake: is its secret the same?",
            None => why,
        };
        // A relay that stays away is not worth a line at each attempt.
        if std::mem::take(&mut link.is_up) || !link.told {
            link.told = true;
            let what = format!("link to relay {}: {why}", link.name);
            self.out.push_back(warning(&self.name, what));
        }
    }

    /// Hands packets for clients of other relays over. Those for a link that is slow wait in its client, the newest of them.
    pub(crate) fn carry(&mut self, server: &mut Server) {
        while let Some(packet) = server.poll_forward() {
            if let Some(link) = self.links.get_mut(packet.link.0 as usize) {
                let class = Class::of(&packet.packet);
                link.client.forward(packet.src, packet.dst, &packet.packet, class);
                link.dialer.write(|space| link.client.poll_transmit(space));
            }
        }
    }

    pub(crate) fn handle_timeout(&mut self, next: &mut u64, server: &mut Server, now: Instant) {
        for n in 0..self.links.len() {
            let link = &mut self.links[n];
            link.client.handle_timeout(now);
            if link.steady_at.is_some_and(|at| at <= now) {
                self.out.extend(link.works().map(|what| warning(&self.name, what)));
            }
            let told = link.dialer.handle_timeout(next, now);
            self.told(n, &told, server, now);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let of = |link: &Link| {
            let steady = link.steady_at.map(|at| (at, "steady link"));
            link.dialer.poll_timeout().into_iter().chain(link.client.poll_timeout()).chain(steady).min()
        };
        self.links.iter().filter_map(of).min()
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.links.iter_mut().find_map(|link| link.dialer.poll_output()).or_else(|| self.out.pop_front())
    }

    /// The relay ends: its links go with it, and none is opened any more.
    pub(crate) fn let_end(&mut self) {
        for link in &mut self.links {
            link.dialer.let_end();
        }
    }
}

fn warning(node: &Name, what: String) -> Output {
    Output::Event(Box::new(Event::Warning { node: node.clone(), what }))
}

#[cfg(test)]
mod tests;

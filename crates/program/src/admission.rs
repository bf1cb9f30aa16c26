//! A relay's question to the coordination server: who may use it?

use crate::upstream::{Dialer, Told, Upstream};
use crate::{ConnId, Input, Output};
use coord::relay::{Relay, RelayEvent};
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;
use trace::{Event, Name};

/// The stream to the coordination server, and the clients that wait for an answer. A key that is not on the list may be that of
/// a machine which has only just joined: its client waits until the list changes, for as long as a handshake may take.
pub(crate) struct AllowList {
    /// The relay's name.
    name: Name,
    relay: Relay,
    dialer: Dialer,
    waiting: BTreeMap<derp::ConnId, derp::PublicKey>,
    /// Why the server does not tell the list any more, as it was logged last.
    missing: Option<String>,
    out: VecDeque<Output>,
}

impl AllowList {
    pub(crate) fn new(name: Name, relay: Relay, coordinator: Upstream, now: Instant) -> AllowList {
        let (dialer, waiting) = (Dialer::new(coordinator, now), BTreeMap::new());
        AllowList { name, relay, dialer, waiting, missing: None, out: VecDeque::new() }
    }

    /// Something happened on a connection; `false` if that is not this list's own.
    pub(crate) fn handle(&mut self, conn: ConnId, input: &Input<'_>, now: Instant) -> bool {
        if !self.dialer.owns(conn) {
            return false;
        }
        let told = self.dialer.handle(input, now);
        self.told(&told, now);
        true
    }

    fn told(&mut self, told: &Told, now: Instant) {
        if told.opened {
            self.relay.connected(now);
        }
        let mut lost = told.lost.clone();
        if !told.data.is_empty()
            && let Err(error) = self.relay.handle_stream(&told.data, now)
        {
            lost = self.dialer.hang_up(&error.to_string(), now).lost.or(lost);
        }
        if let Some(why) = lost {
            self.lost(why);
        }
        self.dialer.write(|space| self.relay.poll_transmit(space));
    }

    fn lost(&mut self, why: String) {
        self.relay.closed();
        // What fails again and again for one reason is one line.
        if self.missing.as_ref() != Some(&why) {
            let kept = if self.relay.allows(&[0; 32]).is_some() {
                "the last answer stays in force"
            } else {
                "nobody"
            };
            self.log(format!(
                "the coordination server does not say who may use this relay ({why}); until it does: {kept}"
            ));
            self.missing = Some(why);
        }
    }

    fn log(&mut self, what: String) {
        let node = self.name.clone();
        self.out.push_back(Output::Event(Box::new(Event::Warning { node, what })));
    }

    pub(crate) fn handle_timeout(&mut self, next: &mut u64, now: Instant) {
        self.relay.handle_timeout(now);
        let told = self.dialer.handle_timeout(next, now);
        self.told(&told, now);
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.dialer.poll_timeout().into_iter().chain(self.relay.poll_timeout()).min()
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front().or_else(|| self.dialer.poll_output())
    }

    /// The relay ends.
    pub(crate) fn let_end(&mut self) {
        self.dialer.let_end();
    }

    /// A client wants to use the relay.
    pub(crate) fn ask(&mut self, conn: derp::ConnId, key: derp::PublicKey) {
        self.waiting.insert(conn, key);
    }

    /// A client's connection is gone. Its key, if it was still waiting.
    pub(crate) fn forget(&mut self, conn: derp::ConnId) -> Option<derp::PublicKey> {
        self.waiting.remove(&conn)
    }

    /// A client that may use the relay from now on.
    pub(crate) fn poll_admitted(&mut self) -> Option<derp::ConnId> {
        let relay = &self.relay;
        let conn =
            self.waiting.iter().find(|(_, key)| relay.allows(&key.0) == Some(true)).map(|(conn, _)| *conn)?;
        self.waiting.remove(&conn);
        Some(conn)
    }

    /// A key that may use the relay no more.
    pub(crate) fn poll_dismissed(&mut self, now: Instant) -> Option<derp::PublicKey> {
        loop {
            match self.relay.poll_event()? {
                RelayEvent::Dismissed(key) => return Some(derp::PublicKey(key)),
                RelayEvent::Failed(error) => {
                    if let Some(why) = self.dialer.hang_up(&error.to_string(), now).lost {
                        self.lost(why);
                    }
                }
                RelayEvent::Listed => {
                    self.dialer.works();
                    self.missing = None;
                    self.log("the coordination server says who may use this relay".to_owned());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Program, RelayProgram};
    use bytes::Bytes;
    use rand_chacha::{ChaCha12Rng, rand_core::SeedableRng};

    const RELAY: [u8; 32] = [5; 32];
    /// The number of the one client's connection, and of its own at the coordination server.
    const CLIENT: ConnId = ConnId(ConnId::FIRST_ACCEPTED);
    const MACHINE: coord::server::ConnId = coord::server::ConnId(99);

    fn rng(seed: u64) -> ChaCha12Rng {
        ChaCha12Rng::seed_from_u64(seed)
    }

    /// A relay, the coordination server that it asks, and a machine that would use it.
    struct Bench {
        now: Instant,
        relay: RelayProgram,
        coordinator: coord::server::Server,
        client: derp::Client,
        machine: coord::client::Client,
        connects: usize,
        closed: bool,
        /// The certificate of the coordination server, and the filter of the relay's connection, where that is TLS.
        tls: Option<(tls::ServerConfig, Option<tls::Tls>)>,
        clock: tls::Clock,
    }

    fn identity(seed: u8) -> tls::Identity {
        let seconds = std::time::Duration::from_secs;
        tls::Identity::self_signed([seed; 32], &["coord"], seconds(0), seconds(2000)).unwrap()
    }

    impl Bench {
        fn new() -> Bench {
            Bench::made(None)
        }

        /// The coordination server has this certificate, and the relay knows it by this pin.
        fn over_tls(certificate: &tls::Identity, pin: tls::Pin) -> Bench {
            Bench::made(Some((tls::ServerConfig::new(certificate).unwrap(), pin)))
        }

        #[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
        fn made(tls: Option<(tls::ServerConfig, tls::Pin)>) -> Bench {
            let now = Instant::now();
            let key = derp::PrivateKey::from_bytes(RELAY);
            let info = coord::RelayInfo {
                region: 1,
                name: "nl".into(),
                key: key.public().0,
                addr: [192, 0, 2, 1].into(),
                addr6: None,
                derp_ports: vec![443],
                tls: None,
                stun: Vec::new(),
            };
            let config = coord::server::ServerConfig::new([9; 32], vec![info]);
            let coordinator = coord::server::Server::new(config, rng(1), now);
            let server_key = coordinator.public_key();
            let asks = coord::relay::RelayConfig { private_key: RELAY, server_key, host: String::new() };
            let config = derp::ServerConfig { admission: true, ..derp::ServerConfig::default() };
            let derp = derp::Server::new(config, key, rng(2), now);
            let clock = tls::Clock::new(std::time::Duration::from_secs(1000), now);
            let port = if tls.is_some() { crate::TLS_PORT } else { 80 };
            let trust = tls.as_ref().map(|(_, pin)| peer::ServerTls {
                ports: vec![crate::TLS_PORT],
                name: "coord".to_owned(),
                trust: tls::ClientConfig::pinned(*pin),
            });
            let addresses = vec![([192, 0, 2, 9], port).into()];
            let at = Upstream { addresses, tls: trust, clock, rng: rng(6) };
            let relay = RelayProgram::new("nl".into(), derp);
            let relay = relay.with_admission(Relay::new(asks, rng(3)), at, now);
            let node = derp::PrivateKey::from_bytes([7; 32]);
            let machine = coord::client::ClientConfig {
                machine_key: [6; 32],
                server_key,
                name: "takkie".into(),
                node_key: coord::KeyPair::new([7; 32]),
                disco_key: coord::KeyPair::new([8; 32]),
                host: String::new(),
                auth_key: None,
            };
            Bench {
                now,
                relay,
                coordinator,
                client: derp::Client::new(derp::ClientConfig::new(node, "nl"), rng(4), now),
                machine: coord::client::Client::new(machine, rng(5), now),
                connects: 0,
                closed: false,
                tls: tls.map(|(config, _)| (config, None)),
                clock,
            }
        }

        fn connect_client(&mut self) {
            self.client.connected(self.now);
            let from = ([192, 0, 2, 7], 1).into();
            self.relay.handle(Input::Accepted { conn: CLIENT, port: 443, from }, self.now);
            self.relay.handle(Input::Writable { conn: CLIENT, space: 1 << 20 }, self.now);
            self.run();
        }

        fn join_network(&mut self) {
            self.machine.connected(self.now);
            self.coordinator.accepted(MACHINE, ([192, 0, 2, 7], 2).into(), self.now);
            self.coordinator.writable(MACHINE, 1 << 20, self.now);
            self.run();
        }

        /// Bytes of the relay arrive at the coordination server.
        fn at_coordinator(&mut self, conn: ConnId, data: &Bytes) {
            let id = coord::server::ConnId(conn.0);
            let Some((_, Some(filter))) = &mut self.tls else {
                return self.coordinator.handle_stream(id, data, self.now);
            };
            let fed = filter.feed_wire(data, self.now);
            while let Some(plain) = filter.poll_plain() {
                self.coordinator.handle_stream(id, &plain, self.now);
            }
            while let Some(data) = filter.poll_wire(usize::MAX) {
                self.relay.handle(Input::Stream { conn, data: &data }, self.now);
            }
            if fed.is_err() {
                self.relay.handle(Input::Closed { conn }, self.now);
            }
        }

        /// And the answer at the relay.
        fn at_relay(&mut self, conn: ConnId, data: &Bytes) {
            let Some((_, Some(filter))) = &mut self.tls else {
                return self.relay.handle(Input::Stream { conn, data }, self.now);
            };
            filter.write_plain(data);
            while let Some(data) = filter.poll_wire(usize::MAX) {
                self.relay.handle(Input::Stream { conn, data: &data }, self.now);
            }
        }

        fn run(&mut self) {
            self.relay.handle_timeout(self.now);
            for _ in 0..50 {
                while let Some(output) = self.relay.poll_output() {
                    match output {
                        Output::Connect { conn, .. } => {
                            self.connects += 1;
                            if let Some((config, filter)) = &mut self.tls {
                                *filter = Some(tls::Tls::server(config, rng(7), self.clock).unwrap());
                            }
                            let id = coord::server::ConnId(conn.0);
                            self.coordinator.accepted(id, ([192, 0, 2, 1], 3).into(), self.now);
                            self.coordinator.writable(id, 1 << 20, self.now);
                            self.relay.handle(Input::Connected { conn }, self.now);
                            self.relay.handle(Input::Writable { conn, space: 1 << 20 }, self.now);
                        }
                        Output::Write { conn: CLIENT, data } => {
                            self.client.handle_stream(&data, self.now).unwrap();
                        }
                        Output::Write { conn, data } => self.at_coordinator(conn, &data),
                        Output::Close { conn } => self.closed |= conn == CLIENT,
                        _ => {}
                    }
                }
                while let Some(data) = self.client.poll_transmit(1 << 20) {
                    self.relay.handle(Input::Stream { conn: CLIENT, data: &data }, self.now);
                }
                while let Some(data) = self.machine.poll_transmit(1 << 20) {
                    self.coordinator.handle_stream(MACHINE, &data, self.now);
                }
                while let Some(transmit) = self.coordinator.poll_transmit() {
                    let (conn, data): (_, Option<Bytes>) = match transmit {
                        coord::server::ServerTransmit::Write { conn, data } => (conn, Some(data)),
                        coord::server::ServerTransmit::Close { conn } => (conn, None),
                    };
                    let id = ConnId(conn.0);
                    match data {
                        Some(data) if conn == MACHINE => {
                            self.machine.handle_stream(&data, self.now).unwrap();
                        }
                        Some(data) => self.at_relay(id, &data),
                        None => self.relay.handle(Input::Closed { conn: id }, self.now),
                    }
                }
            }
        }
    }

    #[test]
    fn a_machine_of_the_network_is_served_and_no_other() {
        let mut bench = Bench::new();
        bench.run();
        bench.connect_client();
        assert_eq!((bench.client.is_ready(), bench.closed), (false, false), "it waits");
        bench.now += derp::server::HANDSHAKE_TIMEOUT;
        bench.run();
        assert_eq!((bench.client.is_ready(), bench.closed), (false, true));

        let mut bench = Bench::new();
        bench.run();
        bench.join_network();
        bench.connect_client();
        assert!(bench.client.is_ready());
    }

    #[test]
    fn the_question_is_asked_over_tls_of_the_server_with_the_pinned_certificate_only() {
        let (ours, other) = (identity(1), identity(2));
        for (pin, is_known) in [(ours.pin(), true), (other.pin(), false)] {
            let mut bench = Bench::over_tls(&ours, pin);
            bench.run();
            bench.join_network();
            bench.connect_client();
            assert_eq!((bench.client.is_ready(), bench.connects), (is_known, 1));
        }
        let mut bench = Bench::over_tls(&ours, ours.pin());
        bench.run();
        bench.connect_client();
        assert!(!bench.client.is_ready(), "a key that the server does not know");
    }

    #[test]
    fn a_machine_that_joins_in_the_meantime_need_not_come_again() {
        let mut bench = Bench::new();
        bench.run();
        bench.connect_client();
        bench.join_network();
        assert!(bench.client.is_ready());
        assert_eq!(bench.connects, 1);
    }

    #[test]
    fn the_list_stays_in_force_while_the_server_is_away_and_it_is_tried_again() {
        let mut bench = Bench::new();
        bench.run();
        bench.join_network();
        let own = ConnId(0);
        bench.relay.handle(Input::Closed { conn: own }, bench.now);
        bench.connect_client();
        assert!(bench.client.is_ready());
        assert_eq!(bench.connects, 1);
        bench.now += crate::upstream::RETRY_MIN;
        bench.run();
        assert_eq!(bench.connects, 2);
    }
}

//! TLS in front of a program: what it reads and writes on some of its ports is plaintext, what goes over the network is not.

use crate::{ConnId, Input, Output, Program};
use bytes::{Buf, Bytes};
use rand::Rng;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;
use tls::{Clock, ServerConfig, Tls};

/// How a server's ports are secured.
#[derive(Debug)]
pub struct Security {
    /// The TCP ports that speak TLS; the others are as the program has them.
    pub ports: Vec<u16>,
    /// The certificate.
    pub config: ServerConfig,
    /// What time it is.
    pub clock: Clock,
    /// For the keys of connections.
    pub rng: ChaCha12Rng,
}

/// A program some of whose ports speak TLS. It hears of a connection as soon as that is accepted, so that its limits and
/// deadlines hold for the TLS handshake too, and of space to write to once that is done.
pub struct Secured<P> {
    program: P,
    security: Security,
    conns: BTreeMap<ConnId, Secure>,
    out: VecDeque<Output>,
    /// When it was last called.
    now: Instant,
}

struct Secure {
    tls: Tls,
    /// Bytes that the connection takes.
    credit: usize,
}

impl Secure {
    /// Writes what there is for the wire, as far as the credit goes.
    fn flush(&mut self, conn: ConnId, out: &mut VecDeque<Output>) {
        while let Some(data) = self.tls.poll_wire(self.credit) {
            self.credit -= data.len();
            out.push_back(Output::Write { conn, data });
        }
    }

    /// What the program may write now.
    fn room(&self) -> usize {
        if self.tls.is_handshaking() { 0 } else { tls::room(self.credit) }
    }
}

impl<P: Program> Secured<P> {
    /// Secures a program.
    pub fn new(program: P, security: Security, now: Instant) -> Secured<P> {
        Secured { program, security, conns: BTreeMap::new(), out: VecDeque::new(), now }
    }

    /// The program behind.
    pub fn program(&self) -> &P {
        &self.program
    }

    /// The program behind. Drain the outputs after a change.
    pub fn program_mut(&mut self) -> &mut P {
        &mut self.program
    }

    /// The program alone, for one whose records live on.
    pub fn into_program(self) -> P {
        self.program
    }

    fn accepted(&mut self, conn: ConnId) {
        let mut seed = [0; 32];
        self.security.rng.fill_bytes(&mut seed);
        let (rng, clock) = (ChaCha12Rng::from_seed(seed), self.security.clock);
        if let Ok(tls) = Tls::server(&self.security.config, rng, clock) {
            self.conns.insert(conn, Secure { tls, credit: 0 });
        }
    }

    fn stream(&mut self, conn: ConnId, data: &[u8]) {
        let Some(secure) = self.conns.get_mut(&conn) else { return };
        let was_handshaking = secure.tls.is_handshaking();
        let fed = secure.tls.feed_wire(data, self.now);
        // What TLS itself has to say goes first, be it why it ends.
        secure.flush(conn, &mut self.out);
        let over = fed.is_err() || secure.tls.peer_closed();
        let plain: Vec<Bytes> = std::iter::from_fn(|| secure.tls.poll_plain()).collect();
        if was_handshaking {
            self.tell_room(conn);
        }
        for data in plain {
            self.program.handle(Input::Stream { conn, data: &data }, self.now);
        }
        if over && self.conns.remove(&conn).is_some() {
            self.out.push_back(Output::Close { conn });
            self.program.handle(Input::Closed { conn }, self.now);
        }
    }

    fn tell_room(&mut self, conn: ConnId) {
        if let Some(space) = self.conns.get(&conn).map(Secure::room).filter(|room| *room > 0) {
            self.program.handle(Input::Writable { conn, space }, self.now);
        }
    }

    fn write(&mut self, conn: ConnId, mut data: Bytes) {
        let Some(secure) = self.conns.get_mut(&conn) else { return };
        while !data.is_empty() {
            let taken = secure.tls.write_plain(&data);
            secure.flush(conn, &mut self.out);
            data.advance(taken);
            if taken == 0 {
                break;
            }
        }
        // Records cost something: what is left is less than the program thinks.
        let space = secure.room();
        self.program.handle(Input::Writable { conn, space }, self.now);
    }
}

impl<P: Program> Program for Secured<P> {
    fn udp_ports(&self) -> Vec<u16> {
        self.program.udp_ports()
    }

    fn tcp_ports(&self) -> Vec<u16> {
        self.program.tcp_ports()
    }

    fn handle(&mut self, input: Input<'_>, now: Instant) {
        self.now = now;
        match input {
            Input::Accepted { conn, port, .. } => {
                if self.security.ports.contains(&port) {
                    self.accepted(conn);
                }
                self.program.handle(input, now);
            }
            Input::Stream { conn, data } if self.conns.contains_key(&conn) => self.stream(conn, data),
            Input::Writable { conn, space } => match self.conns.get_mut(&conn) {
                None => self.program.handle(input, now),
                Some(secure) => {
                    secure.credit = space;
                    secure.flush(conn, &mut self.out);
                    self.tell_room(conn);
                }
            },
            Input::Closed { conn } => {
                self.conns.remove(&conn);
                self.program.handle(input, now);
            }
            _ => self.program.handle(input, now),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.program.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.program.poll_timeout()
    }

    fn poll_output(&mut self) -> Option<Output> {
        loop {
            if let Some(output) = self.out.pop_front() {
                return Some(output);
            }
            match self.program.poll_output()? {
                Output::Write { conn, data } if self.conns.contains_key(&conn) => self.write(conn, data),
                Output::Close { conn } => {
                    if let Some(mut secure) = self.conns.remove(&conn) {
                        secure.tls.close();
                        secure.flush(conn, &mut self.out);
                    }
                    self.out.push_back(Output::Close { conn });
                }
                output => return Some(output),
            }
        }
    }

    fn is_finished(&self) -> bool {
        self.program.is_finished()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tls::{ClientConfig, Identity};

    /// Echoes what it reads, as far as it may write.
    #[derive(Default)]
    struct Echo {
        space: usize,
        waiting: Vec<u8>,
        log: Vec<&'static str>,
    }

    const CONN: ConnId = ConnId(7);

    impl Program for Echo {
        fn udp_ports(&self) -> Vec<u16> {
            Vec::new()
        }

        fn handle(&mut self, input: Input<'_>, _: Instant) {
            match input {
                Input::Accepted { .. } => self.log.push("accepted"),
                Input::Stream { data, .. } => self.waiting.extend_from_slice(data),
                Input::Writable { space, .. } => self.space = space,
                Input::Closed { .. } => self.log.push("closed"),
                _ => {}
            }
        }

        fn handle_timeout(&mut self, _: Instant) {}

        fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
            None
        }

        fn poll_output(&mut self) -> Option<Output> {
            // Three bytes at a time: the worst case for what records cost.
            let len = self.waiting.len().min(self.space).min(3);
            self.space -= len;
            let data: Bytes = self.waiting.drain(..len).collect::<Vec<u8>>().into();
            (!data.is_empty()).then_some(Output::Write { conn: CONN, data })
        }
    }

    struct Bench {
        now: Instant,
        server: Secured<Echo>,
        client: Tls,
        space: usize,
        closed: bool,
        heard: Vec<u8>,
    }

    impl Bench {
        #[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
        fn new() -> Bench {
            let now = Instant::now();
            let clock = Clock::new(Duration::from_secs(1000), now);
            let end = Duration::from_secs(100_000);
            let identity = Identity::self_signed([1; 32], &["a.example"], Duration::ZERO, end).unwrap();
            let rng = ChaCha12Rng::seed_from_u64;
            let config = ServerConfig::new(&identity).unwrap();
            let security = Security { ports: vec![443], config, clock, rng: rng(1) };
            let trust = ClientConfig::pinned(identity.pin());
            let mut server = Secured::new(Echo::default(), security, now);
            let from = ([192, 0, 2, 1], 4000).into();
            server.handle(Input::Accepted { conn: CONN, port: 443, from }, now);
            let client = Tls::client(&trust, "a.example", rng(2), clock, now).unwrap();
            Bench { now, server, client, space: usize::MAX, closed: false, heard: Vec::new() }
        }

        /// Gives the server space and moves bytes until none are left.
        fn run(&mut self) {
            loop {
                let mut quiet = true;
                self.server.handle(Input::Writable { conn: CONN, space: self.space }, self.now);
                while let Some(output) = self.server.poll_output() {
                    quiet = false;
                    match output {
                        Output::Write { conn: CONN, data } => {
                            self.space = self.space.checked_sub(data.len()).expect("within its space");
                            self.client.feed_wire(&data, self.now).expect("TLS");
                        }
                        Output::Close { conn: CONN } => self.closed = true,
                        output => panic!("{output:?}"),
                    }
                }
                while let Some(data) = self.client.poll_wire(1000) {
                    quiet = false;
                    self.server.handle(Input::Stream { conn: CONN, data: &data }, self.now);
                }
                while let Some(plain) = self.client.poll_plain() {
                    self.heard.extend_from_slice(&plain);
                }
                if quiet {
                    return;
                }
            }
        }
    }

    #[test]
    fn a_program_behind_tls_reads_and_writes_plaintext_within_its_space() {
        let mut bench = Bench::new();
        bench.client.write_plain(&[5; 300]);
        bench.run();
        assert_eq!(bench.heard, [5; 300]);
        assert_eq!(bench.server.program().log, ["accepted"]);

        bench.client.write_plain(&[6; 300]);
        bench.heard.clear();
        for _ in 0..200 {
            bench.space += 90;
            if bench.space > 100_000 {
                bench.space = 90;
            }
            bench.run();
        }
        assert_eq!(bench.heard, [6; 300]);
    }

    #[test]
    fn a_client_that_speaks_no_tls_is_told_and_closed() {
        let mut bench = Bench::new();
        bench.server.handle(Input::Writable { conn: CONN, space: 1000 }, bench.now);
        let data = Bytes::from_static(b"GET /derp HTTP/1.1\r\n\r\n");
        bench.server.handle(Input::Stream { conn: CONN, data: &data }, bench.now);
        let outputs: Vec<Output> = std::iter::from_fn(|| bench.server.poll_output()).collect();
        assert!(
            matches!(&outputs[..], [Output::Write { data, .. }, Output::Close { .. }] if data[0] == 21),
            "an alert (RFC 8446 §5.1), then the end: {outputs:?}"
        );
        assert_eq!(bench.server.program().log, ["accepted", "closed"]);
    }

    #[test]
    fn a_goodbye_ends_the_connection_for_both() {
        let mut bench = Bench::new();
        bench.run();
        bench.client.close();
        bench.run();
        assert!(bench.closed);
        assert_eq!(bench.server.program().log, ["accepted", "closed"]);
    }

    #[test]
    fn other_ports_are_left_alone() {
        let mut bench = Bench::new();
        let (conn, from) = (ConnId(8), ([192, 0, 2, 1], 4001).into());
        bench.server.handle(Input::Accepted { conn, port: 80, from }, bench.now);
        let data = Bytes::from_static(b"as it is");
        bench.server.handle(Input::Stream { conn, data: &data }, bench.now);
        assert_eq!(bench.server.program().waiting, b"as it is");
    }
}

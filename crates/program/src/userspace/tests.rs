use super::*;
use rand_chacha::rand_core::SeedableRng;

const SOCKS: u16 = 1080;
const WEB: u16 = 80;

/// Two stacks with a tunnel between them, one driven by a SOCKS client and one in front of a server.
struct Two {
    stacks: [Userspace; 2],
    now: Instant,
    /// What was written to the connection outside, at each end.
    written: [Vec<u8>; 2],
    conns: [Option<ConnId>; 2],
    held: [bool; 2],
    closed: [bool; 2],
    /// How much the connection outside takes at a time.
    space: [usize; 2],
}

impl Two {
    #[expect(clippy::disallowed_methods, reason = "the start of a time of its own")]
    fn new() -> Two {
        let mut config = [
            UserspaceConfig { socks: Some(SOCKS), ..UserspaceConfig::default() },
            UserspaceConfig::default(),
        ];
        config[1].expose.insert(WEB, ([127, 0, 0, 1], 8080).into());
        let mut seed = 0;
        let mut stacks = config.map(|config| {
            seed += 1;
            Userspace::new(config, ChaCha12Rng::seed_from_u64(seed))
        });
        let now = Instant::now();
        for (i, stack) in stacks.iter_mut().enumerate() {
            stack.set_address(address(i), now);
            stack.names.insert("flappie".into(), address(1));
        }
        Two {
            stacks,
            now,
            written: [Vec::new(), Vec::new()],
            conns: [None, None],
            held: [false, false],
            closed: [false, false],
            space: [usize::MAX, usize::MAX],
        }
    }

    fn input(&mut self, i: usize, input: Input<'_>) {
        self.stacks[i].handle_outside(input, self.now);
        self.settle();
    }

    /// Carries packets until both are quiet; no packet is lost, and none takes time.
    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            for i in 0..2 {
                while let Some(output) = self.stacks[i].poll_output() {
                    quiet = false;
                    self.output(i, output);
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn output(&mut self, i: usize, output: UserOutput) {
        match output {
            UserOutput::Packet(packet) => {
                self.stacks[1 - i].handle_packet(&"other".into(), &packet, Path::Direct, self.now);
            }
            UserOutput::Outside(Output::Write { conn, data }) => {
                assert_eq!(Some(conn), self.conns[i]);
                assert!(data.len() <= self.space[i], "no more than it takes");
                self.space[i] -= data.len();
                self.written[i].extend_from_slice(&data);
            }
            UserOutput::Outside(Output::Connect { conn, to }) => {
                assert_eq!(to, ([127, 0, 0, 1], 8080).into());
                self.conns[i] = Some(conn);
                let space = self.space[i];
                self.stacks[i].handle_outside(Input::Connected { conn }, self.now);
                self.stacks[i].handle_outside(Input::Writable { conn, space }, self.now);
            }
            UserOutput::Outside(Output::Hold { hold, .. }) => self.held[i] = hold,
            UserOutput::Outside(Output::Close { .. }) => self.closed[i] = true,
            other => panic!("{other:?}"),
        }
    }

    /// A SOCKS client asks for a port of a peer.
    fn ask(&mut self, name: &str, port: u16) -> ConnId {
        let conn = ConnId(ConnId::FIRST_ACCEPTED);
        self.conns[0] = Some(conn);
        let from = ([127, 0, 0, 1], 5000).into();
        self.input(0, Input::Accepted { conn, port: SOCKS, from });
        self.input(0, Input::Writable { conn, space: usize::MAX });
        let len = u8::try_from(name.len()).unwrap();
        let request = [&[5, 1, 0, 5, 1, 0, 3, len][..], name.as_bytes(), &port.to_be_bytes()].concat();
        self.input(0, Input::Stream { conn, data: &request.into() });
        conn
    }

    /// Lets time pass, with every deadline.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let next = self.stacks.iter().filter_map(|stack| stack.poll_timeout()).map(|(at, _)| at).min();
            let Some(at) = next.filter(|at| *at <= until) else { break };
            self.now = self.now.max(at);
            for stack in &mut self.stacks {
                stack.handle_timeout(self.now);
            }
            self.settle();
        }
        self.now = until;
    }
}

fn address(i: usize) -> IpAddr {
    [100, 64, 0, u8::try_from(i + 1).unwrap()].into()
}

#[test]
fn a_socks_client_talks_with_an_exposed_port_of_another_peer_and_both_ends_close() {
    let mut two = Two::new();
    let client = two.ask("flappie", WEB);
    assert_eq!(two.written[0], [5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0], "greeted and connected");

    two.input(0, Input::Stream { conn: client, data: &"GET /".into() });
    assert_eq!(two.written[1], b"GET /");
    let server = two.conns[1].unwrap();
    two.input(1, Input::Stream { conn: server, data: &"200 OK".into() });
    two.input(1, Input::Closed { conn: server });

    assert_eq!(two.written[0][12..], *b"200 OK");
    assert!(two.closed[0], "the end of the answer is passed on");
    two.pass(Duration::from_secs(120));
    assert_eq!(two.stacks.each_ref().map(Userspace::connections), [0, 0], "nothing is left");
}

#[test]
fn what_is_not_exposed_is_refused_and_who_is_not_known_is_not_found() {
    let mut two = Two::new();
    two.ask("flappie", 22);
    assert_eq!(two.written[0][2..4], [5, Reply::Refused as u8]);
    assert!(two.closed[0]);

    let mut two = Two::new();
    two.ask("nobody", WEB);
    assert_eq!(two.written[0][2..4], [5, Reply::HostUnreachable as u8]);
    assert!(two.closed[0]);
}

#[test]
fn a_reader_that_does_not_read_stops_the_writer_at_the_other_end_and_loses_nothing() {
    let mut two = Two::new();
    two.space[1] = 1000;
    let client = two.ask("flappie", WEB);
    let mut sent = Vec::new();
    for i in 0_u32.. {
        if two.held[0] {
            break;
        }
        assert!(i < 10_000, "somebody keeps all of it");
        let data: Vec<u8> = i.to_be_bytes().repeat(1024);
        sent.extend_from_slice(&data);
        two.input(0, Input::Stream { conn: client, data: &data.into() });
    }
    assert_eq!(two.written[1].len(), 1000);

    let server = two.conns[1].unwrap();
    while two.written[1].len() < sent.len() {
        let before = two.written[1].len();
        two.space[1] = 50_000;
        two.input(1, Input::Writable { conn: server, space: 50_000 });
        two.pass(Duration::from_millis(50));
        assert!(two.written[1].len() > before, "stuck at {before}");
    }
    assert!(two.written[1] == sent, "every byte in order");
    assert!(!two.held[0], "and the writer goes on");
}

#[test]
fn a_socks_client_that_says_nothing_is_sent_away() {
    let mut two = Two::new();
    let conn = ConnId(ConnId::FIRST_ACCEPTED);
    two.conns[0] = Some(conn);
    two.input(0, Input::Accepted { conn, port: SOCKS, from: ([127, 0, 0, 1], 5000).into() });
    two.pass(HANDSHAKE);
    assert!(two.closed[0]);
    assert_eq!(two.stacks[0].connections(), 0);
}

#[test]
fn an_echo_request_is_answered() {
    let mut two = Two::new();
    let body = Body::Echo { reply: false, id: 7, seq: 1, data: "ping".into() };
    let (src, dst) = ((address(1), 0).into(), (address(0), 0).into());
    let packet = Packet { src, dst, body }.encode().unwrap();
    two.stacks[0].handle_packet(&"flappie".into(), &packet, Path::Relay, two.now);
    let Some(UserOutput::Packet(answer)) = two.stacks[0].poll_output() else { panic!("an answer") };
    let body = Body::Echo { reply: true, id: 7, seq: 1, data: "ping".into() };
    assert_eq!(Packet::decode(&answer), Some(Packet { src: dst, dst: src, body }));
}

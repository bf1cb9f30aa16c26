//! Every timer and bound of a peer, with its source.

use std::time::Duration;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Waits between the connectivity checks to one candidate in one round: the first goes at once, the rest follow after
/// these. Retry schedule of noq's NAT traversal, also used by iroh (n0-computer/noq, `noq-proto`).
/// Dense at first, because a hole opens only when both sides have sent, and sparse later, because then it is a matter of loss.
pub(crate) const PROBE_GAPS: [Duration; 8] =
    [ms(33), ms(33), ms(67), ms(133), ms(267), ms(533), ms(1067), ms(2000)];

/// Checks to one candidate before its schedule is exhausted. A call from the other side starts the schedule anew, once a
/// round: no candidate is checked more than twice this often in one round.
pub const PROBES_PER_CANDIDATE: u32 = PROBE_GAPS.len() as u32 + 1;

/// Candidates kept (and so checked) per peer. Tailscale prunes at 100 (`wgengine/magicsock/endpoint.go`); a host of ours has
/// at most 8 + 6 + 2 of its own to offer.
pub const MAX_CANDIDATES: usize = 16;

/// Own interface addresses that are offered to others.
pub const MAX_LOCAL: usize = 8;

/// Own reflexive addresses that are offered to others. Tailscale keeps six per IP address
/// (`wgengine/magicsock/endpoint_tracker.go`).
pub const MAX_REFLEXIVE: usize = 6;

/// Checks whose answer may still come, per peer; the oldest is forgotten first. Tailscale keeps 64 pongs
/// (`pongHistoryCount`, `wgengine/magicsock/endpoint.go`).
pub(crate) const MAX_OUTSTANDING: usize = 64;

/// Addresses that are learned from packets which came from them, within [`SEEN_WINDOW`], per peer: a NAT that takes a port for
/// each destination makes one for each of our own addresses that is reached, and few are.
pub(crate) const MAX_SEEN: usize = 8;

/// See [`MAX_SEEN`]: about as long as a round takes (its gaps add up to 4.1 s) and the next one to begin.
pub(crate) const SEEN_WINDOW: Duration = ms(10_000);

/// Checks at the start of a round that a candidate of no higher preference still gets once another one is validated.
pub(crate) const PROBES_BESIDE_VALIDATED: u32 = 5;

/// Timers of a peer. `Policy::default()` is what the documentation of each field says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How long one TCP connection attempt may take before the next address is tried. Default 1.5 s: Tailscale's limit per
    /// relay node (`dialNodeTimeout`, `derp/derphttp/derphttp_client.go`).
    pub connect_timeout: Duration,
    /// How long a server may take from the TCP connection to the end of its handshake. Default 5 s: half of the total that
    /// Tailscale allows (`derp/derphttp/derphttp_client.go`).
    pub handshake_timeout: Duration,
    /// The first retry after a connection that had worked comes within this time, at random, so that the clients of a server
    /// that restarts do not return in one burst. Default 100 ms.
    pub fast_retry: Duration,
    /// First wait after all addresses failed; doubles. Default 250 ms.
    pub retry_min: Duration,
    /// Longest wait between attempts. Default 5 s: Tailscale's cap for relay connections (`wgengine/magicsock/derp.go`).
    pub retry_max: Duration,
    /// A connection that lasted this long counts as having worked: the next failure starts with a fast retry. Default 10 s.
    pub retry_reset: Duration,
    /// A relay connection that is not home closes after this time without a packet. Default 60 s
    /// (`derpInactiveCleanupTime`, `wgengine/magicsock/derp.go`).
    pub relay_idle: Duration,
    /// A relay that carries our packets and was silent for this long is pinged. Default 3 s, as a direct path.
    pub relay_ping: Duration,
    /// A home relay that failed is not chosen again for this time, if there is another; one of a region that said that it is ill
    /// is not connected to again, if another of the region has not. Default 60 s.
    pub relay_avoid: Duration,
    /// A relay that announces its restart is believed to be away for at most this long. Default 30 s, so that a wrong or hostile
    /// announcement costs no more than a relay that is down.
    pub restart_max: Duration,
    /// A relay that is back too late is tried again after a tenth of the time that it announced, within these bounds. Default
    /// 100 ms to 1 s (DERP leaves that undefined: `RestartingMessage`, tailscale `derp/derp.go`).
    pub restart_retry: (Duration, Duration),
    /// Clients of a relay that says that it is ill, or well again, do what follows from that within this time, each at a time
    /// of its own, so that no other relay has them all at once. Default 1 s.
    pub health_spread: Duration,
    /// When no STUN server answered for this long after the first map, a home relay is chosen without knowing round trips.
    /// Default 250 ms: two repetitions unanswered.
    pub home_patience: Duration,
    /// Where STUN gets no answer, so many relays are connected to and measured by that, in the order of the map. Default 5:
    /// Tailscale asks every region over HTTPS then (`net/netcheck/netcheck.go`); a connection costs the relay more than a question.
    pub surveyed_relays: usize,
    /// A new home relay must be this much nearer. Default 10 ms, and to two thirds of the old round trip
    /// (`net/netcheck/netcheck.go`, `addReportHistoryAndSetPreferredDERP`).
    pub home_gain: Duration,
    /// STUN requests to one server in one round go at these times after its start. Default 0, 100, 200 (netcheck's initial
    /// plan), then 500 and 1500 ms (RFC 8489 §6.2.1).
    pub stun_schedule: Vec<Duration>,
    /// A round without any answer for this long means that UDP is blocked. Default 3 s (`stunProbeTimeout`,
    /// `net/netcheck/netcheck.go`).
    pub stun_timeout: Duration,
    /// While there is traffic, reflexive addresses are asked again after a random time in this range. Default 20..26 s, just
    /// inside the 30 s after which many NATs forget a UDP mapping (`wgengine/magicsock/magicsock.go`, `doPeriodicSTUN`).
    pub stun_refresh: (Duration, Duration),
    /// A reflexive address older than this is asked anew when a punch begins, in parallel with it. Default 2 s.
    pub stun_fresh: Duration,
    /// Every server is asked, rather than the nearest few, at least this often. Default 5 min, as netcheck's full
    /// reports (`net/netcheck/netcheck.go`).
    pub stun_full: Duration,
    /// A peer to whom no traffic went or came for this long is idle: nothing is sent to it. Default 45 s
    /// (`sessionActiveTimeout`, `wgengine/magicsock/magicsock.go`).
    pub session_active: Duration,
    /// On an active direct path on which nothing was heard for this long, a ping goes out. Default 3 s
    /// (`heartbeatInterval`, `wgengine/magicsock/magicsock.go`). RFC 8085 §3.5 asks for 15 s or more between keep-alives;
    /// a path that is to be left within seconds of its death needs them more often, so they end with the session.
    pub heartbeat: Duration,
    /// Even a busy direct path is pinged this often while active: that samples the round trip, proves both directions, and
    /// keeps the receiving end of a one-way flow open. Default 12 s, under the 15 s that RFC 8085 §3.5 gives as the shortest
    /// interval a keep-alive should need.
    pub confirm: Duration,
    /// A direct path that was silent for longer than this is not trusted alone. Default 6.5 s (`trustUDPAddrDuration`,
    /// `wgengine/magicsock/magicsock.go`).
    pub trust: Duration,
    /// Tunnel packets that go unanswered for this long make the sender ask whether the path lives. Default 250 ms.
    pub silence: Duration,
    /// Between two liveness probes. Default 200 ms; halved once one has been missed, five times as long while packets come in.
    pub liveness_gap: Duration,
    /// A liveness probe is missed after the smoothed round trip plus four deviations (RFC 6298 §2.3), within these bounds.
    /// Default 200..750 ms.
    pub liveness_timeout: (Duration, Duration),
    /// So many probes missed in a row end a direct path. Default 4: with 5 % loss each way a living path fails that once in
    /// ten thousand times, and with the other defaults it takes 850 ms from the first lost packet.
    pub liveness_missed: u32,
    /// An unanswered ping is forgotten after this. Default 5 s (`pingTimeoutDuration`, `wgengine/magicsock/magicsock.go`).
    pub ping_timeout: Duration,
    /// While relayed traffic goes on, a new round begins after this; doubles each time. Default 5 s (`discoPingInterval`,
    /// `wgengine/magicsock/magicsock.go`).
    pub round_min: Duration,
    /// Longest wait between rounds. Default 60 s (`upgradeUDPDirectInterval`,
    /// `wgengine/magicsock/magicsock.go`).
    pub round_max: Duration,
    /// No two rounds with one peer begin within this time, whoever asks. Default 1 s.
    pub round_gap: Duration,
    /// A call-me-maybe is repeated after these waits until the other side is heard from. Default 300 ms, 1 s, 3 s.
    pub call_again: Vec<Duration>,
    /// A deadline that is handled so late means that the machine has slept: every connection, mapping and path is doubted.
    /// Default 5 s: more than a busy machine is late, and less than the 15 s after which Tailscale looks at its wall clock
    /// (`pollWallTimeInterval`, `net/netmon/netmon.go`).
    pub asleep: Duration,
    /// Another address of the same preference must have a round trip this much shorter. Default 5 ms
    /// (`RTT_SWITCHING_MIN` of iroh's path selection, n0-computer/iroh).
    pub rtt_gain: Duration,
    /// The round trip of an IPv6 address counts as this much shorter than it is, when it is compared with one of IPv4. Default
    /// 10 ms: Tailscale, too, prefers IPv6 where both are about as near (`betterAddr`, `wgengine/magicsock/endpoint.go`).
    pub ipv6_gain: Duration,
    /// A new node key waits so long for the relay to take a connection under it before others are told of it. Default 3 s: three
    /// round trips of a bad line. A relay that admits only keys of the network does so after they were told.
    pub rotate_wait: Duration,
    /// So long after a new node key is in force, relays are still connected to under the old one. Default 30 s: half of the
    /// time after which the coordination server gives a silent stream up, whose peer has not heard of the new key.
    pub rotate_linger: Duration,
    /// A node key that ends is replaced so long before, or when a quarter of its time is left if that is later. Default 1 day, so
    /// that a machine which is on for some hours each day does it in time.
    pub rotate_before: Duration,
    /// Whether an address is checked back from which a check came that nobody had named (peer-reflexive, RFC 8445
    /// §7.3.1.4). Default true; without it a NAT whose mapping varies is only reached where its filter lets anybody in.
    pub learn_peer_reflexive: bool,
    /// Whether loopback addresses are candidates. Default false: another machine's mean nothing here. True where all peers run
    /// on one machine that has no other addresses.
    pub loopback: bool,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            connect_timeout: ms(1500),
            handshake_timeout: ms(5000),
            fast_retry: ms(100),
            retry_min: ms(250),
            retry_max: ms(5000),
            retry_reset: ms(10_000),
            relay_idle: ms(60_000),
            relay_ping: ms(3000),
            relay_avoid: ms(60_000),
            restart_max: ms(30_000),
            restart_retry: (ms(100), ms(1000)),
            health_spread: ms(1000),
            home_patience: ms(250),
            surveyed_relays: 5,
            home_gain: ms(10),
            stun_schedule: vec![ms(0), ms(100), ms(200), ms(500), ms(1500)],
            stun_timeout: ms(3000),
            stun_refresh: (ms(20_000), ms(26_000)),
            stun_fresh: ms(2000),
            stun_full: ms(300_000),
            session_active: ms(45_000),
            heartbeat: ms(3000),
            confirm: ms(12_000),
            trust: ms(6500),
            silence: ms(250),
            liveness_gap: ms(200),
            liveness_timeout: (ms(200), ms(750)),
            liveness_missed: 4,
            ping_timeout: ms(5000),
            round_min: ms(5000),
            round_max: ms(60_000),
            round_gap: ms(1000),
            call_again: vec![ms(300), ms(1000), ms(3000)],
            asleep: ms(5000),
            rtt_gain: ms(5),
            ipv6_gain: ms(10),
            rotate_wait: ms(3000),
            rotate_linger: ms(30_000),
            rotate_before: ms(24 * 3600 * 1000),
            learn_peer_reflexive: true,
            loopback: false,
        }
    }
}

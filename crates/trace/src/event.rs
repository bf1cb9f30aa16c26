//! Every event a run can log, declared once.

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The name of a host, router, relay, link or flow, as the scenario writes it. Cheap to clone.
pub type Name = Arc<str>;

/// What a packet's payload is, told from its first bytes, so that a log can be read without keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Payload {
    /// STUN message (RFC 8489).
    Stun,
    /// Peer discovery message.
    Disco,
    /// WireGuard handshake initiation, response or cookie.
    Handshake,
    /// WireGuard transport data.
    Tunnel,
    /// A TCP segment of a connection to a relay or the coordination server.
    Tcp,
    /// ICMP.
    Icmp,
    /// None of the above.
    Other,
}

/// Transport protocol of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proto {
    /// UDP (RFC 768).
    Udp,
    /// TCP (RFC 9293).
    Tcp,
    /// ICMP (RFC 792) or ICMPv6 (RFC 4443).
    Icmp,
}

/// What a node of the topology is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeKind {
    /// A machine with a peer on it.
    Host,
    /// A router, perhaps with a NAT or a firewall.
    Router,
    /// A relay (DERP) server.
    Relay,
    /// A STUN server.
    Stun,
    /// An HTTP proxy.
    Proxy,
    /// The coordination server.
    Coordinator,
}

/// By which way a tunnelled packet travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// Over a relay.
    Relay,
    /// From peer to peer through the internet (or any realm wider than one LAN).
    Direct,
    /// From peer to peer inside one LAN: the remote address is a private address of the peer itself.
    Lan,
}

impl Path {
    /// The word used in logs, tables and scenario files.
    pub fn as_str(self) -> &'static str {
        match self {
            Path::Relay => "relay",
            Path::Direct => "direct",
            Path::Lan => "lan",
        }
    }
}

/// State of a peer's connection to a relay or to the coordination server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServerState {
    /// A TCP connection is being opened.
    Connecting,
    /// Handshake done, usable.
    Connected,
    /// The attempt failed or timed out.
    Failed,
    /// It was usable and is no longer.
    Closed,
}

impl ServerState {
    /// The word used in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            ServerState::Connecting => "connecting",
            ServerState::Connected => "connected",
            ServerState::Failed => "failed",
            ServerState::Closed => "closed",
        }
    }
}

/// The kind of a traffic flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowKind {
    /// Echo request and reply, one at a time.
    Ping,
    /// Constant-rate stream of datagrams in both directions, like a call.
    Voice,
    /// A TCP transfer inside the tunnel.
    Bulk,
}

/// One event. Field names carry their unit; times are nanoseconds of virtual time since the start of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ev", rename_all = "kebab-case", rename_all_fields = "snake_case")]
pub enum Event {
    // ---- the network -------------------------------------------------------------------------
    /// A node of the topology; all come at time 0, parents before children.
    Node {
        /// Its name.
        node: Name,
        /// What it is.
        kind: NodeKind,
        /// The router it is behind; `None` = on the internet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        behind: Option<Name>,
        /// Region of the internet it hangs off.
        region: Name,
        /// Its address in the realm it is attached to.
        address: IpAddr,
        /// Words for NAT and firewall of a router ("port-restricted-cone", "web-only"); empty for others.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        about: String,
    },
    /// A node put a packet on its interface.
    Sent {
        /// The sending node.
        node: Name,
        /// Packet number, unique in the run; it stays the same through translations.
        id: u64,
        /// Transport.
        proto: Proto,
        /// Source as sent.
        src: SocketAddr,
        /// Destination as sent.
        dst: SocketAddr,
        /// Length of the IP packet in bytes.
        bytes: u32,
        /// What is in it.
        payload: Payload,
    },
    /// A NAT rewrote a packet; source and destination are those after translation.
    Translated {
        /// The router.
        node: Name,
        /// Packet number.
        id: u64,
        /// Source after translation.
        src: SocketAddr,
        /// Destination after translation.
        dst: SocketAddr,
    },
    /// A packet ended here without reaching a program.
    Dropped {
        /// The box or link that dropped it ("home-a", "home-a.up", "internet").
        node: Name,
        /// Packet number.
        id: u64,
        /// A stable word ("no-binding", "filtered-port", "queue-full", "loss", "no-route", …).
        reason: Name,
        /// Transport.
        proto: Proto,
        /// Source as it was here.
        src: SocketAddr,
        /// Destination as it was here.
        dst: SocketAddr,
        /// What is in it.
        payload: Payload,
    },
    /// A packet reached a node's sockets.
    Delivered {
        /// The receiving node.
        node: Name,
        /// Packet number.
        id: u64,
        /// Source as the receiver sees it.
        src: SocketAddr,
        /// Destination as the receiver sees it.
        dst: SocketAddr,
        /// What is in it.
        payload: Payload,
    },
    /// A NAT created a binding (RFC 4787 §4.1) or a firewall its state.
    Binding {
        /// The router.
        node: Name,
        /// Transport.
        proto: Proto,
        /// Inside endpoint.
        inside: SocketAddr,
        /// External endpoint.
        external: SocketAddr,
        /// The remote endpoint whose packet made it.
        remote: SocketAddr,
    },
    /// A binding was removed. A router that reboots or is flushed forgets all of its bindings at once: that is an
    /// [`Action`](Event::Action) alone.
    Unbound {
        /// The router.
        node: Name,
        /// Transport.
        proto: Proto,
        /// Inside endpoint.
        inside: SocketAddr,
        /// External endpoint.
        external: SocketAddr,
        /// Why: "expired".
        reason: Name,
    },
    /// A router's port mapping gateway opened, renewed, closed or refused a port.
    Gateway {
        /// The router.
        node: Name,
        /// "opened", "renewed", "closed" or "refused".
        what: Name,
        /// By "pcp", "nat-pmp" or "upnp"; empty where a lease ended by itself.
        #[serde(default, skip_serializing_if = "str::is_empty")]
        protocol: Name,
        /// Inside endpoint; who asked, where it was refused.
        inside: SocketAddr,
        /// External endpoint.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        external: Option<SocketAddr>,
        /// For how long, ns; `None` = for ever, or closed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lifetime_ns: Option<u64>,
        /// Why; empty when there is nothing to say.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
    },
    /// Something from the scenario's timeline happened.
    Action {
        /// In words, as the scenario says it: "router home-a: reboot, off for 20s".
        what: String,
    },
    /// A host went away, as far as others can tell, or is back: asleep, killed, without power or network.
    Presence {
        /// The host.
        host: Name,
        /// Whether it is there from now on.
        present: bool,
    },
    /// A core's deadline fired, and why it had been set.
    Timer {
        /// The node.
        node: Name,
        /// What the deadline was for.
        what: Name,
    },

    // ---- what a server sees ------------------------------------------------------------------
    /// A machine is connected with the coordination server, or is no more.
    Member {
        /// The server.
        server: Name,
        /// What the machine is called.
        name: String,
        /// Its address inside the tunnel network; `None` when it has left.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tunnel: Option<IpAddr>,
        /// Why it has left.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
    },

    // ---- what a peer learned and did ---------------------------------------------------------
    /// The coordination server accepted the peer.
    Registered {
        /// The host.
        host: Name,
        /// Its address inside the tunnel network.
        tunnel: IpAddr,
    },
    /// The peer has another node key, which others know it by from now on.
    KeyRotated {
        /// The host.
        host: Name,
    },
    /// Connection to the coordination server changed.
    Coordinator {
        /// The host.
        host: Name,
        /// New state.
        state: ServerState,
        /// Address and port tried.
        address: SocketAddr,
        /// Why, in words; empty when there is nothing to say.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
    },
    /// Connection to a relay changed.
    Relay {
        /// The host.
        host: Name,
        /// The relay.
        relay: Name,
        /// New state.
        state: ServerState,
        /// Address and port tried.
        address: SocketAddr,
        /// Why, in words.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
    },
    /// A STUN server told the host its reflexive address.
    Reflexive {
        /// The host.
        host: Name,
        /// The server.
        server: SocketAddr,
        /// The address that it saw.
        mapped: SocketAddr,
        /// Round trip, ns.
        rtt_ns: u64,
    },
    /// What the host now believes of its own NAT; written when the belief changes.
    NatLearned {
        /// The host.
        host: Name,
        /// Does the mapping vary by destination? `None` = cannot tell (fewer than two answers).
        mapping_varies: Option<bool>,
        /// Did no STUN server answer?
        udp_blocked: bool,
        /// The addresses it now offers to others.
        candidates: Vec<SocketAddr>,
    },
    /// A peer's candidates became known.
    Candidates {
        /// The host.
        host: Name,
        /// Whose.
        peer: Name,
        /// The candidates.
        candidates: Vec<SocketAddr>,
        /// "coordinator", "relay" (call-me-maybe) or "peer-reflexive".
        via: Name,
    },
    /// A connectivity check (disco ping) went out.
    Probe {
        /// The host.
        host: Name,
        /// To whom.
        peer: Name,
        /// Where to.
        to: SocketAddr,
        /// How many went to this address in this round before this one.
        attempt: u32,
        /// "check", "triggered", "keep-alive", "liveness" or "width" (as long as the packets that bring nothing back).
        why: Name,
    },
    /// A check was answered: the path works both ways.
    Validated {
        /// The host.
        host: Name,
        /// With whom.
        peer: Name,
        /// Remote address.
        address: SocketAddr,
        /// Round trip, ns.
        rtt_ns: u64,
    },
    /// The path on which the host sends to a peer changed.
    PathChanged {
        /// The host.
        host: Name,
        /// To whom.
        peer: Name,
        /// The new path; `None` = there is none.
        path: Option<Path>,
        /// Remote address of a direct path.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<SocketAddr>,
        /// Name of the relay of a relayed path.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        relay: Option<Name>,
        /// Why, in words: "validated", "no answer to 3 probes", …
        reason: String,
    },
    /// What came of a host's asking its router for an open port.
    PortMapping {
        /// The host.
        host: Name,
        /// "mapped", "lost", "unusable" (an address that nobody can reach), "refused", "gateway-restarted" or "no-gateway".
        what: Name,
        /// "pcp", "nat-pmp" or "upnp"; empty where it is about all of them.
        #[serde(default, skip_serializing_if = "str::is_empty")]
        protocol: Name,
        /// The address outside that it is about.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        external: Option<SocketAddr>,
        /// Why, in words; empty when there is nothing to say.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
    },
    /// A tunnel session with a peer came up.
    Session {
        /// The host.
        host: Name,
        /// With whom.
        peer: Name,
        /// Did this side start the handshake?
        initiator: bool,
    },
    /// A core reported an error that it handled.
    Warning {
        /// The node.
        node: Name,
        /// In words.
        what: String,
    },

    // ---- traffic inside the tunnel -----------------------------------------------------------
    /// A flow starts.
    FlowStart {
        /// Flow name, unique in the run: "ping takkie flappie".
        flow: Name,
        /// Its kind.
        kind: FlowKind,
        /// The side that starts it.
        from: Name,
        /// The other side.
        to: Name,
    },
    /// A program sent a packet into the tunnel (not for bulk data).
    AppSent {
        /// The flow.
        flow: Name,
        /// The sending host.
        host: Name,
        /// Number of the packet in this flow and direction, from 0.
        seq: u64,
        /// Length of the packet inside the tunnel, bytes.
        bytes: u32,
    },
    /// A program received a packet out of the tunnel (not for bulk data).
    AppReceived {
        /// The flow.
        flow: Name,
        /// The receiving host.
        host: Name,
        /// Its number.
        seq: u64,
        /// Since it was sent, ns.
        latency_ns: u64,
        /// The path it came by.
        path: Path,
    },
    /// A ping came back.
    Echo {
        /// The flow.
        flow: Name,
        /// Number of the ping.
        seq: u64,
        /// Round trip, ns.
        rtt_ns: u64,
        /// Path of the request, as its receiver saw it.
        out: Path,
        /// Path of the reply.
        back: Path,
    },
    /// Bytes of a bulk transfer reached the reading program in order.
    BulkReceived {
        /// The flow.
        flow: Name,
        /// The receiving host.
        host: Name,
        /// Bytes delivered in order so far.
        total_bytes: u64,
        /// The path by which the last of them came.
        path: Path,
    },
    /// A flow ended.
    FlowEnd {
        /// The flow.
        flow: Name,
        /// Did it finish what it set out to do?
        complete: bool,
        /// Why not, in words.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
    },

    // ---- the judge ----------------------------------------------------------------------------
    /// Something happened that is never allowed to happen.
    Violation {
        /// Stable name of the invariant.
        invariant: Name,
        /// What was seen.
        detail: String,
    },
    /// The run is over.
    End {
        /// Events the world processed.
        events: u64,
    },
}

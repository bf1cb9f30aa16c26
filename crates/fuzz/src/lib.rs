//! Every parser of the project, as a function that takes any bytes: it must come back, and what it reads must hold.
//!
//! `cargo test -p fuzz` feeds each with real messages, with those cut short, altered and spliced, and with noise. The same
//! functions are targets of libFuzzer, for as long as one likes (nightly Rust and `cargo install cargo-fuzz`):
//!
//! ```sh
//! cargo run -p fuzz --example corpus
//! cd crates/fuzz && cargo +nightly fuzz run --fuzz-dir libfuzzer stun
//! ```
//!
//! [`TARGETS`] has them all with examples of what they read. A finding becomes one more example there.

mod datagrams;
mod streams;
mod texts;

/// A parser to be tried.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its libFuzzer binary.
    pub name: &'static str,
    /// Reads the bytes. Panics if something is wrong with the parser.
    pub run: fn(&[u8]),
    /// Real messages of the kind that it reads.
    pub examples: fn() -> Vec<Vec<u8>>,
}

/// Makes the list, and the function of each name for libFuzzer.
macro_rules! targets {
    ($($(#[$doc:meta])* $name:ident = $module:ident),+ $(,)?) => {
        /// All of them, by name.
        pub const TARGETS: &[Target] = &[
            $(Target { name: stringify!($name), run: $module::$name::run, examples: $module::$name::examples }),+
        ];
        $($(#[$doc])* pub fn $name(data: &[u8]) {
            $module::$name::run(data);
        })+
    };
}

targets! {
    /// STUN messages (RFC 8489).
    stun = datagrams,
    /// Discovery messages, inside their box and as datagrams.
    disco = datagrams,
    /// WireGuard messages, to a device with a session.
    wireguard = datagrams,
    /// NAT-PMP and PCP (RFC 6886, 6887), and UPnP's discovery.
    portmap = datagrams,
    /// DNS messages of prefix discovery (RFC 7050).
    pref64 = datagrams,
    /// IP packets of the simulator.
    packet = datagrams,
    /// DERP frames, in pieces.
    derp_frames = streams,
    /// A stream to a relay: HTTP, WebSocket, frames.
    derp_server = streams,
    /// A stream from a relay.
    derp_client = streams,
    /// A stream to the coordination server.
    coord_server = streams,
    /// A stream from the coordination server.
    coord_client = streams,
    /// A stream to an HTTP proxy, and its answer.
    proxy = streams,
    /// TLS records, to both ends.
    tls = streams,
    /// UPnP's HTTP, SOAP and descriptions.
    upnp = texts,
    /// Scenario files.
    scenario = texts,
    /// The event log.
    log = texts,
    /// Rates and delays over time (Mahimahi's format).
    link_trace = texts,
    /// Certificates, keys and pins.
    pem = texts,
}

/// A time to begin with: the cores know no other than the one they are told.
fn start() -> std::time::Instant {
    #[expect(clippy::disallowed_methods, reason = "a test has to start somewhere")]
    std::time::Instant::now()
}

fn rng() -> rand_chacha::ChaCha12Rng {
    rand_chacha::rand_core::SeedableRng::seed_from_u64(1)
}

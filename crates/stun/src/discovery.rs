//! How a NAT maps and filters, by the tests of RFC 5780 §4.3 and §4.4, from one socket.

use std::net::SocketAddr;
use std::time::Instant;

use rand::Rng as _;
use rand_chacha::ChaCha12Rng;

use crate::client::{Client, Event, Failure, Retransmit};
use crate::message::{Attribute, Message, TransactionId};

/// What a mapping or a filter depends on (RFC 4787 §4.1 and §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependence {
    /// On nothing but our own address and port.
    EndpointIndependent,
    /// On the other end's address.
    AddressDependent,
    /// On the other end's address and port.
    AddressAndPortDependent,
}

impl Dependence {
    /// RFC 4787's words, in lower case with hyphens.
    pub fn as_str(self) -> &'static str {
        match self {
            Dependence::EndpointIndependent => "endpoint-independent",
            Dependence::AddressDependent => "address-dependent",
            Dependence::AddressAndPortDependent => "address-and-port-dependent",
        }
    }
}

/// What was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// Our address as the server sees it; `None` if it never answered (UDP blocked, or no server there).
    pub mapped: Option<SocketAddr>,
    /// The mapping; `None` if the server has no alternate address or it did not answer there.
    pub mapping: Option<Dependence>,
    /// The filter; `None` if the server has no alternate address.
    pub filtering: Option<Dependence>,
}

/// The tests against one server. Filtering comes before mapping, as sending to the other address would open the filter
/// that is to be tested; its two tests run at the same time. Where the filter is not endpoint-independent the
/// outcome takes as long as `config` takes to give up.
#[derive(Debug)]
pub struct Discovery {
    server: SocketAddr,
    config: Retransmit,
    rng: ChaCha12Rng,
    behaviour: Behaviour,
    other: Option<SocketAddr>,
    /// Mapping as seen from (other address, primary port).
    second: Option<SocketAddr>,
    running: Vec<(Test, Client)>,
    /// Whether the first question was asked again without any RFC 5780 attribute.
    asked_plainly: bool,
    filter_open: (Option<bool>, Option<bool>),
    outcome: Option<Behaviour>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    /// §4.3 and §4.4, test I.
    Primary,
    /// §4.4, test II: answer from other address and port.
    FilterBoth,
    /// §4.4, test III: answer from other port.
    FilterPort,
    /// §4.3, test II: to the other address, primary port.
    MapAddress,
    /// §4.3, test III: to the other address and port.
    MapBoth,
}

impl Discovery {
    /// Starts with the server's primary address. `rng` makes the transaction identifiers.
    pub fn new(server: SocketAddr, config: Retransmit, rng: ChaCha12Rng, now: Instant) -> Discovery {
        let mut discovery = Discovery {
            server,
            config,
            rng,
            behaviour: Behaviour { mapped: None, mapping: None, filtering: None },
            other: None,
            second: None,
            running: Vec::new(),
            asked_plainly: false,
            filter_open: (None, None),
            outcome: None,
        };
        discovery.start(Test::Primary, server, now);
        discovery
    }

    /// Takes a datagram; `false` if it answers none of the running tests.
    pub fn handle(&mut self, from: SocketAddr, datagram: &[u8], now: Instant) -> bool {
        let taken = self.running.iter_mut().any(|(_, client)| client.handle(from, datagram, now));
        self.proceed(now);
        taken
    }

    /// Repeats what is due and gives up what is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.running.iter_mut().for_each(|(_, client)| client.handle_timeout(now));
        self.proceed(now);
    }

    /// The earliest deadline of a running test; `None` once the outcome is there.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.running.iter().filter_map(|(_, client)| client.poll_timeout()).min()
    }

    /// The next datagram and where it goes.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.running.iter_mut().find_map(|(_, client)| client.poll_transmit())
    }

    /// The outcome, once.
    pub fn poll_event(&mut self) -> Option<Behaviour> {
        self.outcome.take()
    }

    fn id(&mut self) -> TransactionId {
        let mut id = TransactionId([0; 12]);
        self.rng.fill_bytes(&mut id.0);
        id
    }

    fn start(&mut self, test: Test, to: SocketAddr, now: Instant) {
        let mut request = Message { fingerprint: true, ..Message::binding_request(self.id()) };
        // Without a flag set it only asks for OTHER-ADDRESS; a server that knows no CHANGE-REQUEST refuses it.
        request.attributes.push(Attribute::ChangeRequest {
            ip: test == Test::FilterBoth,
            port: matches!(test, Test::FilterBoth | Test::FilterPort),
        });
        self.running.push((test, Client::request(to, &request, self.config, now)));
    }

    fn proceed(&mut self, now: Instant) {
        while let Some((index, event)) = self
            .running
            .iter_mut()
            .enumerate()
            .find_map(|(index, (_, client))| Some((index, client.poll_event()?)))
        {
            let (test, client) = self.running.swap_remove(index);
            match event {
                Event::Mapped { mapped, other, .. } => self.answered(test, mapped, other, now),
                Event::Failed { .. } => self.failed(test, &client, now),
            }
        }
    }

    fn answered(&mut self, test: Test, mapped: SocketAddr, other: Option<SocketAddr>, now: Instant) {
        match test {
            Test::Primary => {
                self.behaviour.mapped = Some(mapped);
                // An alternate that shares address or port would make the later tests mean nothing.
                self.other = other.filter(|o| o.ip() != self.server.ip() && o.port() != self.server.port());
                if self.other.is_none() {
                    return self.finish();
                }
                self.start(Test::FilterBoth, self.server, now);
                self.start(Test::FilterPort, self.server, now);
            }
            Test::FilterBoth => {
                // An open filter settles both tests; the other need not be waited for.
                self.running.clear();
                self.filter_open = (Some(true), Some(true));
                self.filtered(now);
            }
            Test::FilterPort => {
                self.filter_open.1 = Some(true);
                self.filtered(now);
            }
            Test::MapAddress if Some(mapped) == self.behaviour.mapped => {
                self.behaviour.mapping = Some(Dependence::EndpointIndependent);
                self.finish();
            }
            Test::MapAddress => {
                self.second = Some(mapped);
                match self.other {
                    Some(other) => self.start(Test::MapBoth, other, now),
                    None => self.finish(),
                }
            }
            Test::MapBoth => {
                self.behaviour.mapping = Some(if Some(mapped) == self.second {
                    Dependence::AddressDependent
                } else {
                    Dependence::AddressAndPortDependent
                });
                self.finish();
            }
        }
    }

    fn failed(&mut self, test: Test, client: &Client, now: Instant) {
        match test {
            // Refused rather than silent: the server lives, but has no alternates. Ask it plainly.
            Test::Primary if matches!(client.failure(), Some(Failure::Refused(_))) && !self.asked_plainly => {
                self.asked_plainly = true;
                let id = self.id();
                self.running.push((test, Client::binding(self.server, id, self.config, now)));
            }
            Test::Primary | Test::MapAddress | Test::MapBoth => self.finish(),
            Test::FilterBoth => {
                self.filter_open.0 = Some(false);
                self.filtered(now);
            }
            Test::FilterPort => {
                self.filter_open.1 = Some(false);
                self.filtered(now);
            }
        }
    }

    fn filtered(&mut self, now: Instant) {
        let (Some(both), Some(port)) = self.filter_open else { return };
        self.behaviour.filtering = Some(match (both, port) {
            (true, _) => Dependence::EndpointIndependent,
            (false, true) => Dependence::AddressDependent,
            (false, false) => Dependence::AddressAndPortDependent,
        });
        match self.other {
            Some(other) => self.start(Test::MapAddress, SocketAddr::new(other.ip(), self.server.port()), now),
            None => self.finish(),
        }
    }

    fn finish(&mut self) {
        self.running.clear();
        self.outcome = Some(self.behaviour);
    }
}

//! The box.

use std::fmt;
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use nat::{
    Answer, DropReason, Event, Foreign, Forgotten, LinuxNat, MapError, Mapped, Middlebox, Packet, Proto,
    Side, Translation, Verdict, Wanted,
};
use rand_pcg::Pcg64Mcg;

use crate::conntrack::Conntrack;
use crate::ends::{Devices, Ends};
use crate::namespace::{self, Namespace, Reach};
use crate::render::{self, Shape};
use crate::{Error, express, ruleset};

/// Where a box stands.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its external addresses.
    pub external: Vec<IpAddr>,
    /// The networks inside, with the lengths of their prefixes.
    pub inside: Vec<(IpAddr, u8)>,
}

/// The NAT of the running kernel.
pub struct KernelNat {
    namespace: Namespace,
    devices: Devices,
    conntrack: Conntrack,
    /// Keeps the time, and says what a drop means.
    shadow: LinuxNat,
    id: u16,
    buffer: Vec<u8>,
    disagreements: u64,
    first: Option<String>,
    failure: Option<io::Error>,
    /// Whether somebody has asked for one.
    redirections: bool,
}

impl fmt::Debug for KernelNat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelNat").field("shadow", &self.shadow).finish_non_exhaustive()
    }
}

impl KernelNat {
    /// A box that does what `translation` says, reached by TUN, or by veth where there is no TUN. `rng` is the shadow's,
    /// for what the kernel leaves open.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn new(translation: &Translation, site: &Site, rng: Pcg64Mcg) -> Result<KernelNat, Error> {
        KernelNat::with_ends(translation, site, rng, Ends::Auto)
    }

    /// The same, reached by `ends`.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn with_ends(
        translation: &Translation,
        site: &Site,
        rng: Pcg64Mcg,
        ends: Ends,
    ) -> Result<KernelNat, Error> {
        let config = express(translation, &site.external)?;
        let rules = ruleset(&config, &site.external);
        let (namespace, reach) = Namespace::new(site, &rules, config.tcp_pickup, ends)?;
        let Reach { devices, conntrack } = reach;
        let mut shadow = LinuxNat::new(config, site.external.clone(), rng);
        shadow.set_forgotten(true);
        let buffer = vec![0; 2048];
        Ok(KernelNat {
            namespace,
            devices,
            conntrack,
            shadow,
            id: 0,
            buffer,
            disagreements: 0,
            first: None,
            failure: None,
            redirections: false,
        })
    }

    /// By which kind of device it is reached: never [`Ends::Auto`].
    pub fn ends(&self) -> Ends {
        self.devices.ends()
    }

    /// The model beside the kernel.
    pub fn shadow(&self) -> &LinuxNat {
        &self.shadow
    }

    /// How many packets the kernel judged otherwise than the model, and the first of them in words.
    pub fn disagreements(&self) -> (u64, Option<&str>) {
        (self.disagreements, self.first.as_deref())
    }

    /// The first thing that the kernel refused to do; verdicts since then mean little.
    pub fn failure(&self) -> Option<&io::Error> {
        self.failure.as_ref()
    }

    /// Deletes from the kernel's tables what the model's clock has forgotten.
    fn forget(&mut self) {
        let mut elements = String::new();
        while let Some(forgotten) = self.shadow.poll_forgotten() {
            match forgotten {
                Forgotten::Conversation { proto, src, dst } => {
                    let deleted = self.conntrack.delete(proto, src, dst).map(|_| ());
                    self.note(deleted);
                }
                Forgotten::Host { proto, external } if proto != Proto::Icmp => {
                    let (ip, port) = (external.ip(), external.port());
                    let _ = writeln!(elements, "delete element ip box hosts {{ {proto} . {ip} . {port} }}");
                }
                Forgotten::Contact { proto, external, remote } if proto != Proto::Icmp => {
                    let (ip, port) = (external.ip(), external.port());
                    let _ = writeln!(
                        elements,
                        "delete element ip box contacted {{ {proto} . {ip} . {port} . {remote} }}"
                    );
                }
                Forgotten::Redirection { proto, external } if proto != Proto::Icmp => {
                    let (ip, port) = (external.ip(), external.port());
                    for table in ["redirections", "redirected"] {
                        let _ =
                            writeln!(elements, "delete element ip box {table} {{ {proto} . {ip} . {port} }}");
                    }
                }
                Forgotten::Host { .. } | Forgotten::Contact { .. } | Forgotten::Redirection { .. } => {}
            }
        }
        if !elements.is_empty() {
            let done = self.namespace.nft(&elements).map_err(io::Error::other);
            self.note(done);
        }
    }

    fn note(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            self.failure.get_or_insert(error);
        }
    }

    /// Sends a packet in by one device and reads what comes out of both.
    fn inject(&mut self, side: Side, shape: &Shape) -> io::Result<Outcome> {
        self.id = self.id.checked_add(1).unwrap_or(1);
        let bytes = render::bytes(shape, self.id)?;
        let mut outcome = Outcome::default();
        let id = self.id;
        self.devices.exchange(side, &bytes, &mut self.buffer, |out, bytes| match render::parse(bytes) {
            Some((came, number)) => outcome.take(out, came, number == id, shape),
            None => false,
        })?;
        Ok(outcome)
    }
}

/// What came out.
#[derive(Debug, Default)]
struct Outcome {
    forwarded: Option<(Side, Shape)>,
    answer: Option<Answer>,
}

impl Outcome {
    /// False for a packet that has nothing to do with the one that was sent.
    fn take(&mut self, out: Side, came: Shape, tagged: bool, sent: &Shape) -> bool {
        let reset = |shape: &Shape| shape.flags.is_some_and(|flags| flags.rst);
        if tagged
            && came.proto == sent.proto
            && came.quoted.is_some() == sent.quoted.is_some()
            && came.flags == sent.flags
        {
            self.forwarded = Some((out, came));
        } else if came.quoted.is_some() && sent.quoted.is_none() && came.dst.ip() == sent.src.ip() {
            self.answer = Some(Answer::PortUnreachable);
        } else if reset(&came) && !reset(sent) && came.dst == sent.src {
            self.answer = Some(Answer::Reset);
        } else {
            return false;
        }
        true
    }
}

impl Middlebox for KernelNat {
    fn packet(&mut self, side: Side, packet: &mut dyn Packet, now: Instant) -> Verdict {
        self.shadow.handle_timeout(now);
        self.forget();
        let before = Shape::of(packet);
        let outcome = match self.inject(side, &before) {
            Ok(outcome) => outcome,
            Err(error) => {
                self.note(Err(error));
                Outcome::default()
            }
        };
        let port = outcome.forwarded.as_ref().map(|(_, shape)| shape.src.port());
        self.shadow.suggest_port(port.filter(|_| before.quoted.is_none()));
        let mut expected = before.clone();
        let model = self.shadow.packet(side, &mut expected, now);
        let agrees = match (&outcome.forwarded, outcome.answer, model) {
            (Some((out, shape)), _, Verdict::Forward(side)) => *out == side && *shape == expected,
            (None, None, Verdict::Drop(_)) => true,
            (None, Some(answer), Verdict::Reject(_, expected)) => answer == expected,
            _ => false,
        };
        if !agrees {
            self.disagreements += 1;
            self.first.get_or_insert_with(|| {
                format!("{before:?} from {side:?}: the kernel {outcome:?}, the model {model:?} {expected:?}")
            });
        }
        let reason = match model {
            Verdict::Drop(reason) | Verdict::Reject(reason, _) => reason,
            Verdict::Forward(_) => DropReason::NoBinding,
        };
        match (outcome.forwarded, outcome.answer) {
            (Some((out, shape)), _) => {
                shape.onto(packet);
                Verdict::Forward(out)
            }
            (None, Some(answer)) => Verdict::Reject(reason, answer),
            (None, None) => Verdict::Drop(reason),
        }
    }

    fn clear(&mut self) {
        self.shadow.clear();
        let flushed = self.conntrack.flush();
        self.note(flushed);
        let mut text = String::new();
        if self.redirections {
            self.redirections = false;
            text.push_str("flush map ip box redirections\nflush set ip box redirected\n");
        }
        if self.shadow.config().rule.has_map() {
            text.push_str("flush map ip box hosts\nflush set ip box contacted\n");
        }
        if !text.is_empty() {
            let flushed = self.namespace.nft(&text).map_err(io::Error::other);
            self.note(flushed);
        }
    }

    fn set_events(&mut self, on: bool) {
        self.shadow.set_events(on);
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.shadow.poll_event()
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.shadow.poll_timeout()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.shadow.handle_timeout(now);
        self.forget();
    }
}

impl Foreign for KernelNat {
    fn external(&self) -> &[IpAddr] {
        self.shadow.external()
    }

    fn conversations(&self) -> usize {
        self.shadow.conversations()
    }

    fn bindings(&self) -> Box<dyn Iterator<Item = (Proto, SocketAddr, SocketAddr, SocketAddr)> + '_> {
        Box::new(self.shadow.bindings())
    }

    /// Writes the rules anew. What the kernel knows of conversations stays; the maps of hosts are empty again.
    fn set_config(&mut self, translation: Translation) {
        match express(&translation, self.shadow.external()) {
            Ok(config) => {
                self.shadow.set_config(config);
                self.rewrite("");
            }
            Err(error) => self.note(Err(io::Error::other(error))),
        }
    }

    fn set_external(&mut self, external: Vec<IpAddr>, now: Instant) {
        let before = self.shadow.external().to_vec();
        self.shadow.set_external(external.clone(), now);
        self.forget();
        let mut links = String::new();
        for ip in external.iter().filter(|ip| !before.contains(ip)) {
            let _ = writeln!(links, "address add {ip}/32 dev wan");
        }
        for ip in before.iter().filter(|ip| !external.contains(ip)) {
            let _ = writeln!(links, "address del {ip}/32 dev wan");
        }
        links.push_str(&namespace::way_out(&self.devices));
        self.rewrite(&links);
    }

    fn map(
        &mut self,
        proto: Proto,
        inside: SocketAddr,
        wanted: Wanted,
        until: Option<Instant>,
        now: Instant,
    ) -> Result<SocketAddr, MapError> {
        let known = |nat: &KernelNat| nat.shadow.mapped().count();
        let before = known(self);
        let external = self.shadow.map(proto, inside, wanted, until, now)?;
        self.forget();
        if known(self) != before && proto != Proto::Icmp {
            let text = redirection(proto, inside, external);
            let added = self.namespace.nft(&text).map_err(io::Error::other);
            self.note(added);
            self.redirections = true;
        }
        Ok(external)
    }

    fn unmap(&mut self, proto: Proto, external: SocketAddr, now: Instant) -> bool {
        let found = self.shadow.unmap(proto, external, now);
        self.forget();
        found
    }

    fn mapped(&self) -> Box<dyn Iterator<Item = Mapped> + '_> {
        Box::new(self.shadow.mapped())
    }

    fn external_for(&self, inside: IpAddr) -> Option<IpAddr> {
        self.shadow.external_for(inside)
    }

    fn trouble(&self) -> Option<String> {
        self.failure.as_ref().map(|error| format!("the kernel's NAT: {error}"))
    }
}

impl KernelNat {
    /// Replaces the rules, after `links` of the command `ip`.
    fn rewrite(&mut self, links: &str) {
        let external = self.shadow.external();
        let mut text = String::from("delete table ip box\n");
        text.push_str(&ruleset(self.shadow.config(), external));
        for mapped in self.shadow.mapped().filter(|mapped| mapped.proto != Proto::Icmp) {
            text.push_str(&redirection(mapped.proto, mapped.inside, mapped.external));
        }
        let done = self.namespace.ip(links).and_then(|()| self.namespace.nft(&text));
        self.note(done.map_err(io::Error::other));
    }
}

fn redirection(proto: Proto, inside: SocketAddr, external: SocketAddr) -> String {
    let key = format!("{proto} . {} . {}", external.ip(), external.port());
    format!(
        "add element ip box redirections {{ {key} : {} . {} }}\nadd element ip box redirected {{ {key} }}\n",
        inside.ip(),
        inside.port()
    )
}

//! Reading and writing `run.jsonl`.

use crate::Event;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Write};

/// Version of the log format; a reader refuses another.
pub const FORMAT: u32 = 1;

/// The first line of a log: enough to make the rest again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`].
    pub format: u32,
    /// Name of the scenario: its path below the scenario folder, without ".toml".
    pub scenario: String,
    /// Its title.
    pub title: String,
    /// BLAKE3 of the scenario file's bytes, hexadecimal.
    pub scenario_hash: String,
    /// The seed.
    pub seed: u64,
    /// Version of the program that wrote it.
    pub version: String,
    /// "sim".
    pub world: String,
}

/// One line of a log after the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Virtual time, nanoseconds since the start of the run.
    pub t: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file ended before its first line.
    #[error("the log is empty")]
    Empty,
    /// A line is not what it should be.
    #[error("line {line}: {source}")]
    Line {
        /// Line number, from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Written in another format.
    #[error("log format {0}, this program reads {FORMAT}")]
    Format(u32),
    /// The bytes could not be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Writes the first line.
pub fn write_header(out: &mut impl Write, header: &Header) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, header)?;
    out.write_all(b"\n")
}

/// Writes one event.
pub fn write_record(out: &mut impl Write, record: &Record) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, record)?;
    out.write_all(b"\n")
}

/// Reads a whole log, checking its format.
pub fn read(input: impl BufRead) -> Result<(Header, Vec<Record>), LogError> {
    let mut lines = input.lines();
    let first = lines.next().ok_or(LogError::Empty)??;
    let header: Header = serde_json::from_str(&first).map_err(|source| LogError::Line { line: 1, source })?;
    if header.format != FORMAT {
        return Err(LogError::Format(header.format));
    }
    let mut records = Vec::new();
    for (n, line) in lines.enumerate() {
        let line = line?;
        records.push(serde_json::from_str(&line).map_err(|source| LogError::Line { line: n + 2, source })?);
    }
    Ok((header, records))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FlowKind, Name, NodeKind, Path, Payload, Proto, ServerState};
    use proptest::prelude::*;
    use std::net::{IpAddr, SocketAddr};

    fn header() -> Header {
        Header {
            format: FORMAT,
            scenario: "nat/cone".into(),
            title: "Two \"cones\"".into(),
            scenario_hash: "00ff".into(),
            seed: u64::MAX,
            version: "0.1.0".into(),
            world: "sim".into(),
        }
    }

    fn write(header: &Header, records: &[Record]) -> Vec<u8> {
        let mut out = Vec::new();
        write_header(&mut out, header).unwrap();
        for record in records {
            write_record(&mut out, record).unwrap();
        }
        out
    }

    fn name() -> impl Strategy<Value = Name> {
        "[a-z\"\\\\é\n .-]{0,9}".prop_map(Name::from)
    }

    fn path() -> impl Strategy<Value = Path> {
        prop_oneof![Just(Path::Relay), Just(Path::Direct), Just(Path::Lan)]
    }

    fn address() -> impl Strategy<Value = SocketAddr> {
        any::<SocketAddr>().prop_map(|mut address| {
            // The text form of an address has no flow label, and a log needs none.
            if let SocketAddr::V6(v6) = &mut address {
                v6.set_flowinfo(0);
            }
            address
        })
    }

    fn payload() -> impl Strategy<Value = Payload> {
        let all = [
            Payload::Stun,
            Payload::Disco,
            Payload::Handshake,
            Payload::Tunnel,
            Payload::Tcp,
            Payload::Icmp,
            Payload::Other,
        ];
        proptest::sample::select(all.to_vec())
    }

    fn proto() -> impl Strategy<Value = Proto> {
        prop_oneof![Just(Proto::Udp), Just(Proto::Tcp), Just(Proto::Icmp)]
    }

    fn state() -> impl Strategy<Value = ServerState> {
        use ServerState::{Closed, Connected, Connecting, Failed};
        proptest::sample::select(vec![Connecting, Connected, Failed, Closed])
    }

    fn network_event() -> impl Strategy<Value = crate::Event> {
        use crate::Event as E;
        let kind = proptest::sample::select(vec![
            NodeKind::Host,
            NodeKind::Router,
            NodeKind::Relay,
            NodeKind::Stun,
            NodeKind::Proxy,
            NodeKind::Coordinator,
        ]);
        let ends = || (address(), address());
        prop_oneof![
            (name(), kind, proptest::option::of(name()), name(), any::<IpAddr>(), ".{0,9}").prop_map(
                |(node, kind, behind, region, address, about)| E::Node {
                    node,
                    kind,
                    behind,
                    region,
                    address,
                    about
                }
            ),
            (name(), any::<u64>(), proto(), ends(), any::<u32>(), payload()).prop_map(
                |(node, id, proto, (src, dst), bytes, payload)| E::Sent {
                    node,
                    id,
                    proto,
                    src,
                    dst,
                    bytes,
                    payload
                }
            ),
            (name(), any::<u64>(), ends()).prop_map(|(node, id, (src, dst))| E::Translated {
                node,
                id,
                src,
                dst
            }),
            (name(), any::<u64>(), name(), proto(), ends(), payload()).prop_map(
                |(node, id, reason, proto, (src, dst), payload)| E::Dropped {
                    node,
                    id,
                    reason,
                    proto,
                    src,
                    dst,
                    payload
                }
            ),
            (name(), any::<u64>(), ends(), payload())
                .prop_map(|(node, id, (src, dst), payload)| E::Delivered { node, id, src, dst, payload }),
            (name(), proto(), ends(), address()).prop_map(|(node, proto, (inside, external), remote)| {
                E::Binding { node, proto, inside, external, remote }
            }),
            (name(), proto(), ends(), name()).prop_map(|(node, proto, (inside, external), reason)| {
                E::Unbound { node, proto, inside, external, reason }
            }),
            ".{0,9}".prop_map(|what| E::Action { what }),
            (name(), any::<bool>()).prop_map(|(host, present)| E::Presence { host, present }),
            (name(), name()).prop_map(|(node, what)| E::Timer { node, what }),
            (name(), ".{0,9}").prop_map(|(node, what)| E::Warning { node, what }),
            (name(), ".{0,9}").prop_map(|(invariant, detail)| E::Violation { invariant, detail }),
            any::<u64>().prop_map(|events| E::End { events }),
        ]
    }

    fn peer_event() -> impl Strategy<Value = crate::Event> {
        use crate::Event as E;
        let addresses = || proptest::collection::vec(address(), 0..4);
        prop_oneof![
            (name(), any::<IpAddr>()).prop_map(|(host, tunnel)| E::Registered { host, tunnel }),
            name().prop_map(|host| E::KeyRotated { host }),
            (name(), ".{0,9}", any::<Option<IpAddr>>(), ".{0,9}")
                .prop_map(|(server, name, tunnel, reason)| E::Member { server, name, tunnel, reason }),
            (name(), state(), address(), ".{0,9}")
                .prop_map(|(host, state, address, reason)| E::Coordinator { host, state, address, reason }),
            (name(), name(), state(), address(), ".{0,9}").prop_map(
                |(host, relay, state, address, reason)| E::Relay { host, relay, state, address, reason }
            ),
            (name(), address(), address(), any::<u64>())
                .prop_map(|(host, server, mapped, rtt_ns)| E::Reflexive { host, server, mapped, rtt_ns }),
            (name(), any::<Option<bool>>(), any::<bool>(), addresses()).prop_map(
                |(host, mapping_varies, udp_blocked, candidates)| E::NatLearned {
                    host,
                    mapping_varies,
                    udp_blocked,
                    candidates
                }
            ),
            (name(), name(), addresses(), name()).prop_map(|(host, peer, candidates, via)| E::Candidates {
                host,
                peer,
                candidates,
                via
            }),
            (name(), name(), address(), any::<u32>(), name())
                .prop_map(|(host, peer, to, attempt, why)| E::Probe { host, peer, to, attempt, why }),
            (name(), name(), address(), any::<u64>())
                .prop_map(|(host, peer, address, rtt_ns)| E::Validated { host, peer, address, rtt_ns }),
            (name(), name(), proptest::option::of(path()), proptest::option::of(address()), ".{0,9}")
                .prop_map(|(host, peer, path, address, reason)| E::PathChanged {
                    host,
                    peer: peer.clone(),
                    path,
                    address,
                    relay: address.is_none().then_some(peer),
                    reason
                }),
            (name(), name(), any::<bool>()).prop_map(|(host, peer, initiator)| E::Session {
                host,
                peer,
                initiator
            }),
        ]
    }

    fn traffic_event() -> impl Strategy<Value = crate::Event> {
        use crate::Event as E;
        let kind = proptest::sample::select(vec![FlowKind::Ping, FlowKind::Voice, FlowKind::Bulk]);
        prop_oneof![
            (name(), kind, name(), name()).prop_map(|(flow, kind, from, to)| E::FlowStart {
                flow,
                kind,
                from,
                to
            }),
            (name(), name(), any::<u64>(), any::<u32>()).prop_map(|(flow, host, seq, bytes)| E::AppSent {
                flow,
                host,
                seq,
                bytes
            }),
            (name(), name(), any::<u64>(), any::<u64>(), path()).prop_map(
                |(flow, host, seq, latency_ns, path)| E::AppReceived { flow, host, seq, latency_ns, path }
            ),
            (name(), any::<u64>(), any::<u64>(), path(), path())
                .prop_map(|(flow, seq, rtt_ns, out, back)| E::Echo { flow, seq, rtt_ns, out, back }),
            (name(), name(), any::<u64>(), path()).prop_map(|(flow, host, total_bytes, path)| {
                E::BulkReceived { flow, host, total_bytes, path }
            }),
            (name(), any::<bool>(), ".{0,9}").prop_map(|(flow, complete, reason)| E::FlowEnd {
                flow,
                complete,
                reason
            }),
        ]
    }

    fn record() -> impl Strategy<Value = Record> {
        (any::<u64>(), prop_oneof![network_event(), peer_event(), traffic_event()])
            .prop_map(|(t, event)| Record { t, event })
    }

    proptest! {
        #[test]
        fn any_log_reads_back(records in proptest::collection::vec(record(), 0..20)) {
            let bytes = write(&header(), &records);
            prop_assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), records.len() + 1);
            let (read_header, read_records) = read(&bytes[..]).unwrap();
            prop_assert_eq!(read_header, header());
            prop_assert_eq!(read_records, records);
        }

        #[test]
        fn arbitrary_bytes_are_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(read(&bytes[..]).is_err());
        }

        #[test]
        fn an_arbitrary_line_is_named_by_its_number(line in "[^\n\r]{1,40}", before in 0usize..3) {
            let record = Record { t: 0, event: crate::Event::End { events: 1 } };
            let mut bytes = write(&header(), &vec![record; before]);
            bytes.extend_from_slice(line.as_bytes());
            let Err(LogError::Line { line, .. }) = read(&bytes[..]) else { panic!("accepted") };
            prop_assert_eq!(line, before + 2);
        }

        #[test]
        fn a_log_cut_anywhere_is_read_in_part_or_refused(records in proptest::collection::vec(record(), 1..5), cut in any::<prop::sample::Index>()) {
            let bytes = write(&header(), &records);
            let cut = cut.index(bytes.len());
            if let Ok((_, read)) = read(&bytes[..cut]) {
                prop_assert_eq!(&read[..], &records[..read.len()]);
            }
        }
    }

    #[test]
    fn a_line_looks_as_documented() {
        let host = Name::from("takkie");
        let record =
            Record { t: 12, event: crate::Event::Registered { host, tunnel: [100, 64, 0, 1].into() } };
        let bytes = write(&header(), &[record]);
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(
            text.lines().nth(1),
            Some(r#"{"t":12,"ev":"registered","host":"takkie","tunnel":"100.64.0.1"}"#)
        );
    }

    #[test]
    fn an_empty_log_and_another_format_are_refused() {
        assert!(matches!(read(&b""[..]), Err(LogError::Empty)));
        let other = Header { format: FORMAT + 1, ..header() };
        assert!(matches!(read(&write(&other, &[])[..]), Err(LogError::Format(2))));
    }
}

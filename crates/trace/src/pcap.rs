//! Packet captures (pcapng) that Wireshark and tcpdump open.
//!
//! ```
//! let mut capture = trace::pcap::Capture::new(Vec::new())?;
//! let home = capture.interface("home-a.wan")?;
//! let packet = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0x66, 0xea, 10, 0, 0, 1, 10, 0, 0, 2];
//! capture.packet(home, 1_500_000_000, &packet)?;
//! let file: Vec<u8> = capture.into_inner();
//! # assert_eq!(file[..4], [0x0a, 0x0d, 0x0d, 0x0a]);
//! # Ok::<(), trace::pcap::CaptureError>(())
//! ```
//!
//! The format is that of draft-ietf-opsawg-pcapng: always little-endian, times in nanoseconds since the start of the run,
//! so that the same packets give the same bytes on every machine. Out of scope: reading.

use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, Endianness, PcapError};
use std::borrow::Cow;
use std::io::Write;
use std::time::Duration;

/// The resolution of times as a power of ten: 10⁻⁹ s (if_tsresol, draft-ietf-opsawg-pcapng §4.2).
const TSRESOL_NS: u8 = 9;

/// Longest name of an interface, bytes. An option's length has 16 bits; no name should come near.
pub const NAME_MAX: usize = 1_024;

/// Longest IP packet, bytes: total length in IPv4 has 16 bits (RFC 791 §3.1).
pub const PACKET_MAX: usize = 65_535;

/// EtherType of IPv4 and IPv6 (IEEE 802 numbers).
const ETHERTYPE: [[u8; 2]; 2] = [[0x08, 0x00], [0x86, 0xdd]];

/// Direction bits of the flags word (epb_flags, draft-ietf-opsawg-pcapng §4.3.1).
const INBOUND: u32 = 0b01;
const OUTBOUND: u32 = 0b10;

/// An interface of a [`Capture`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceId(u32);

/// Why something could not be captured.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The name of an interface is longer than [`NAME_MAX`].
    #[error("the name of an interface has {0} bytes, at most {NAME_MAX} fit")]
    Name(usize),
    /// The interface is of another capture.
    #[error("this capture has no interface {0}")]
    Interface(u32),
    /// The packet is longer than [`PACKET_MAX`].
    #[error("the packet has {0} bytes, at most {PACKET_MAX} fit")]
    Long(usize),
    /// The packet is empty or is neither IPv4 nor IPv6.
    #[error("not an IP packet")]
    NotIp,
    /// The bytes could not be written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl From<CaptureError> for std::io::Error {
    fn from(error: CaptureError) -> std::io::Error {
        match error {
            CaptureError::Io(error) => error,
            other => std::io::Error::new(std::io::ErrorKind::InvalidInput, other),
        }
    }
}

/// Writes one pcapng file with any number of interfaces.
///
/// Packets get an Ethernet header with invented, locally administered addresses: `02:00:…` for the captured
/// interface and `06:00:…` for whatever is at the other end of its cable; the last four bytes are the interface's number.
#[derive(Debug)]
pub struct Capture<W: Write> {
    writer: PcapNgWriterDebug<W>,
    interfaces: u32,
}

impl<W: Write> Capture<W> {
    /// Starts a file.
    pub fn new(writer: W) -> Result<Capture<W>, CaptureError> {
        let writer = PcapNgWriter::with_endianness(writer, Endianness::Little).map_err(io)?;
        Ok(Capture { writer: PcapNgWriterDebug(writer), interfaces: 0 })
    }

    /// Adds an interface; packets of others may already have been written.
    pub fn interface(&mut self, name: &str) -> Result<InterfaceId, CaptureError> {
        if name.len() > NAME_MAX {
            return Err(CaptureError::Name(name.len()));
        }
        let id = InterfaceId(self.interfaces);
        let block = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: 0,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Borrowed(name)),
                InterfaceDescriptionOption::IfMacAddr(Cow::Owned(mac(0x02, id).to_vec())),
                InterfaceDescriptionOption::IfTsResol(TSRESOL_NS),
            ],
        };
        self.writer.0.write_pcapng_block(block).map_err(io)?;
        self.interfaces += 1;
        Ok(id)
    }

    /// Writes an IP packet that left by this interface, `t_ns` after the start of the run.
    pub fn packet(&mut self, interface: InterfaceId, t_ns: u64, packet: &[u8]) -> Result<(), CaptureError> {
        self.write(interface, t_ns, packet, OUTBOUND)
    }

    /// Writes an IP packet that arrived by this interface, `t_ns` after the start of the run.
    pub fn received(&mut self, interface: InterfaceId, t_ns: u64, packet: &[u8]) -> Result<(), CaptureError> {
        self.write(interface, t_ns, packet, INBOUND)
    }

    /// Flushes what the writer holds back.
    pub fn flush(&mut self) -> Result<(), CaptureError> {
        Ok(self.writer.0.get_mut().flush()?)
    }

    /// Gives the writer back, without flushing it.
    pub fn into_inner(self) -> W {
        self.writer.0.into_inner()
    }

    fn write(
        &mut self,
        id: InterfaceId,
        t_ns: u64,
        packet: &[u8],
        direction: u32,
    ) -> Result<(), CaptureError> {
        if id.0 >= self.interfaces {
            return Err(CaptureError::Interface(id.0));
        }
        if packet.len() > PACKET_MAX {
            return Err(CaptureError::Long(packet.len()));
        }
        let ethertype = match packet.first().map(|byte| byte >> 4) {
            Some(4) => ETHERTYPE[0],
            Some(6) => ETHERTYPE[1],
            _ => return Err(CaptureError::NotIp),
        };
        let (near, far) = (mac(0x02, id), mac(0x06, id));
        let (to, from) = if direction == OUTBOUND { (far, near) } else { (near, far) };
        let frame = [&to[..], &from, &ethertype, packet].concat();
        let block = EnhancedPacketBlock {
            interface_id: id.0,
            timestamp: Duration::from_nanos(t_ns),
            original_len: u32::try_from(frame.len()).unwrap_or(u32::MAX),
            data: Cow::Owned(frame),
            options: vec![EnhancedPacketOption::Flags(direction)],
        };
        self.writer.0.write_pcapng_block(block).map_err(io)?;
        Ok(())
    }
}

/// `PcapNgWriter` has no `Debug`, and a capture inside another type should not take it away.
struct PcapNgWriterDebug<W: Write>(PcapNgWriter<W>);

impl<W: Write> std::fmt::Debug for PcapNgWriterDebug<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PcapNgWriter")
    }
}

/// Bit 1 of the first byte set: locally administered (IEEE 802-2014 §8.4), so never that of a real card.
fn mac(first: u8, id: InterfaceId) -> [u8; 6] {
    let [a, b, c, d] = id.0.to_be_bytes();
    [first, 0, a, b, c, d]
}

/// All else that the writer can report, this module has ruled out before.
fn io(error: PcapError) -> CaptureError {
    CaptureError::Io(match error {
        PcapError::IoError(error) => error,
        other => std::io::Error::other(other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcap_file::pcapng::{Block, PcapNgReader};
    use proptest::prelude::*;

    /// IPv4, UDP, 192.168.1.2:7 → 203.0.113.9:9, "hi", with correct checksums.
    const UDP: [u8; 30] = [
        0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0x7d, 0x1b, 192, 168, 1, 2, 203, 0, 113, 9, 0, 7, 0, 9, 0, 10,
        0x99, 0xac, b'h', b'i',
    ];

    fn blocks(file: &[u8]) -> Vec<Block<'static>> {
        let mut reader = PcapNgReader::new(file).unwrap();
        let mut blocks = Vec::new();
        while let Some(block) = reader.next_block() {
            blocks.push(block.unwrap().into_owned());
        }
        blocks
    }

    #[test]
    fn interfaces_and_packets_read_back_with_their_times_and_directions() {
        let mut capture = Capture::new(Vec::new()).unwrap();
        let a = capture.interface("home-a").unwrap();
        capture.packet(a, 1, &UDP).unwrap();
        let b = capture.interface("home-b").unwrap();
        capture.received(b, 5_000_000_123, &UDP).unwrap();

        let blocks = blocks(&capture.into_inner());
        let [
            Block::InterfaceDescription(first),
            Block::EnhancedPacket(out),
            Block::InterfaceDescription(second),
            Block::EnhancedPacket(into),
        ] = &blocks[..]
        else {
            panic!("{blocks:?}");
        };
        assert_eq!(first.linktype, DataLink::ETHERNET);
        assert!(first.options.contains(&InterfaceDescriptionOption::IfName("home-a".into())));
        for interface in [first, second] {
            assert!(interface.options.contains(&InterfaceDescriptionOption::IfTsResol(9)));
        }
        assert_eq!((out.interface_id, out.timestamp), (0, Duration::from_nanos(1)));
        assert_eq!((into.interface_id, into.timestamp), (1, Duration::from_nanos(5_000_000_123)));
        assert_eq!(out.data[..14], [6, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 8, 0]);
        assert_eq!(into.data[..14], [2, 0, 0, 0, 0, 1, 6, 0, 0, 0, 0, 1, 8, 0]);
        assert_eq!(out.data[14..], UDP);
        assert_eq!(into.options, [EnhancedPacketOption::Flags(INBOUND)]);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let mut other = Capture::new(Vec::new()).unwrap();
        other.interface("one").unwrap();
        let strange = other.interface("two").unwrap();
        let mut capture = Capture::new(Vec::new()).unwrap();
        let id = capture.interface("one").unwrap();

        assert!(matches!(capture.packet(strange, 0, &UDP), Err(CaptureError::Interface(1))));
        assert!(matches!(capture.packet(id, 0, &[]), Err(CaptureError::NotIp)));
        assert!(matches!(capture.packet(id, 0, &[0x50]), Err(CaptureError::NotIp)));
        assert!(matches!(capture.packet(id, 0, &vec![0x45; 65_536]), Err(CaptureError::Long(65_536))));
        assert!(matches!(capture.interface(&"x".repeat(1_025)), Err(CaptureError::Name(1_025))));
        assert!(blocks(&capture.into_inner()).len() == 1, "nothing of a refused packet is written");
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let mut file = [0u8; 40];
        let mut capture = Capture::new(&mut file[..]).unwrap();
        assert!(matches!(capture.interface("home-a"), Err(CaptureError::Io(_))));
    }

    #[test]
    fn tcpdump_reads_it_with_correct_checksums() {
        let mut capture = Capture::new(Vec::new()).unwrap();
        let id = capture.interface("home-a").unwrap();
        capture.packet(id, 1_500_000_123, &UDP).unwrap();
        let folder = std::env::temp_dir().join(format!("trace-pcap-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("one.pcapng");
        std::fs::write(&path, capture.into_inner()).unwrap();

        let args = ["-nn", "-tt", "-e", "-vv", "--nano", "-r"];
        let tcpdump = std::process::Command::new("tcpdump").args(args).arg(&path).output();
        std::fs::remove_dir_all(&folder).unwrap();
        let Ok(output) = tcpdump else { return }; // not installed here; the other tests read the file with pcap-file

        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for part in [
            "1.500000123 02:00:00:00:00:00 > 06:00:00:00:00:00",
            "192.168.1.2.7 > 203.0.113.9.9",
            "[udp sum ok]",
        ] {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
        assert!(!text.contains("bad"), "{text}");
    }

    proptest! {
        #[test]
        fn any_packet_reads_back(
            packets in proptest::collection::vec((0..3u32, any::<u64>(), prop_oneof![Just(0x45u8), Just(0x60)],
                proptest::collection::vec(any::<u8>(), 0..200)), 0..20)
        ) {
            let write = || {
                let mut capture = Capture::new(Vec::new()).unwrap();
                let ids = ["a", "b", "c"].map(|name| capture.interface(name).unwrap());
                for (interface, t_ns, first, rest) in &packets {
                    let packet = [&[*first], &rest[..]].concat();
                    capture.packet(ids[*interface as usize], *t_ns, &packet).unwrap();
                }
                capture.into_inner()
            };
            let file = write();
            prop_assert_eq!(&file, &write());
            let blocks = blocks(&file);
            prop_assert_eq!(blocks.len(), 3 + packets.len());
            for (block, (interface, t_ns, first, rest)) in blocks[3..].iter().zip(&packets) {
                let Block::EnhancedPacket(block) = block else { panic!("{block:?}") };
                prop_assert_eq!(block.interface_id, *interface);
                prop_assert_eq!(block.timestamp, Duration::from_nanos(*t_ns));
                prop_assert_eq!(block.data[14], *first);
                prop_assert_eq!(&block.data[15..], &rest[..]);
            }
        }
    }
}

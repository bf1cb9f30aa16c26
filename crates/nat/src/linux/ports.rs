//! How the kernel chooses external addresses and ports.

use std::net::IpAddr;

use crate::{PortRange, Proto};

/// The seed of the rules that hash. The kernel draws one unless the rule names it.
pub const HASH_SEED: u32 = 0x9747_b28c;

/// The class of ports that an inside port may be moved within where the rule names none (`nf_nat_core.c`,
/// `nf_nat_l4proto_unique_tuple`).
pub(super) const fn class(proto: Proto, inside: u16) -> PortRange {
    match (proto, inside) {
        (Proto::Icmp, _) => PortRange { low: 0, high: u16::MAX },
        (_, ..512) => PortRange { low: 1, high: 511 },
        (_, ..1024) => PortRange { low: 600, high: 1023 },
        _ => PortRange::UNPRIVILEGED,
    }
}

/// Which of `count` addresses of a pool (`find_best_ips_proto`): by source and destination, or with `persistent` by the
/// source alone. Exact for IPv4.
pub(super) fn pool_index(src: IpAddr, dst: IpAddr, persistent: bool, count: u32) -> u32 {
    let initial = if persistent { 0 } else { words(dst)[if dst.is_ipv4() { 0 } else { 3 }] };
    scale(jhash(&words(src), initial), count)
}

/// The port that `jhash` with this range gives for these parts of a packet.
pub(super) fn hashed_port(words: &[u32], range: PortRange) -> u16 {
    let size = u32::from(range.high - range.low) + 1;
    range.low + scale(jhash(words, HASH_SEED), size) as u16
}

/// `nf_inet_addr` as the kernel hashes it: four words as they stand in memory on a little-endian machine, an IPv4 address
/// in the first.
pub(super) fn words(ip: IpAddr) -> [u32; 4] {
    match ip {
        IpAddr::V4(v4) => [u32::from_le_bytes(v4.octets()), 0, 0, 0],
        IpAddr::V6(v6) => {
            let mut words = [0; 4];
            for (word, bytes) in words.iter_mut().zip(v6.octets().chunks_exact(4)) {
                *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
            words
        }
    }
}

/// A port as it stands in a register of nftables: in network order, padded to four bytes.
pub(super) const fn port_word(port: u16) -> u32 {
    port.to_be() as u32
}

/// `reciprocal_scale`: `value` of all 32-bit values onto `0..count`.
fn scale(value: u32, count: u32) -> u32 {
    ((u64::from(value) * u64::from(count)) >> 32) as u32
}

/// Bob Jenkins' lookup3 as in the kernel's `jhash2` (include/linux/jhash.h).
fn jhash(words: &[u32], initial: u32) -> u32 {
    let start = 0xdead_beef_u32.wrapping_add((words.len() as u32) << 2).wrapping_add(initial);
    let (mut a, mut b, mut c) = (start, start, start);
    let mut rest = words;
    while let [x, y, z, more @ ..] = rest
        && !more.is_empty()
    {
        a = a.wrapping_add(*x);
        b = b.wrapping_add(*y);
        c = c.wrapping_add(*z);
        for (i, j) in [(4, 6), (16, 19)] {
            a = a.wrapping_sub(c) ^ c.rotate_left(i);
            c = c.wrapping_add(b);
            b = b.wrapping_sub(a) ^ a.rotate_left(j);
            a = a.wrapping_add(c);
            c = c.wrapping_sub(b) ^ b.rotate_left(if i == 4 { 8 } else { 4 });
            b = b.wrapping_add(a);
        }
        rest = more;
    }
    if rest.is_empty() {
        return c;
    }
    for (sum, word) in [&mut a, &mut b, &mut c].into_iter().zip(rest) {
        *sum = sum.wrapping_add(*word);
    }
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

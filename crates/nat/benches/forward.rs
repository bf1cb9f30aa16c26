//! What a packet of an existing conversation costs, out and back in, at one flow and at a thousand.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nat::{Middlebox as _, Packet, Proto, Side, Translator, presets};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::SeedableRng as _;

#[derive(Clone)]
struct Datagram {
    src: SocketAddr,
    dst: SocketAddr,
}

impl Packet for Datagram {
    fn wire_len(&self) -> usize {
        28
    }
    fn proto(&self) -> Proto {
        Proto::Udp
    }
    fn src(&self) -> SocketAddr {
        self.src
    }
    fn dst(&self) -> SocketAddr {
        self.dst
    }
    fn set_src(&mut self, src: SocketAddr) {
        self.src = src;
    }
    fn set_dst(&mut self, dst: SocketAddr) {
        self.dst = dst;
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark has to start somewhere")]
fn start() -> Instant {
    Instant::now()
}

fn forward(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("there-and-back");
    group.throughput(Throughput::Elements(2));
    for name in ["port-restricted-cone", "symmetric", "linux"] {
        for flows in [1_u32, 1000] {
            let config = presets::nat(name).expect("a preset").config.clone();
            let external = SocketAddr::from(([198, 51, 100, 1], 0)).ip();
            let mut nat = Translator::new(config, vec![external], Pcg64Mcg::seed_from_u64(1));
            let outgoing: Vec<Datagram> = (0..flows)
                .map(|i| Datagram {
                    src: SocketAddr::from(([10, 0, (i >> 8) as u8, i as u8], 41641)),
                    dst: SocketAddr::from(([203, 0, 113, i as u8], 41641)),
                })
                .collect();
            let (mut now, mut next) = (start(), 0);
            group.bench_function(format!("{name}/{flows}"), |bencher| {
                bencher.iter(|| {
                    now += Duration::from_micros(1);
                    let mut out = outgoing[next].clone();
                    next = (next + 1) % outgoing.len();
                    black_box(nat.packet(Side::Inside, &mut out, now));
                    let mut back = Datagram { src: out.dst, dst: out.src };
                    black_box(nat.packet(Side::Outside, &mut back, now))
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, forward);
criterion_main!(benches);

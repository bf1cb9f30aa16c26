//! Named access links, each with the source of its values.
//!
//! Published figures are round-trip times; half of one is each direction's delay. None of the sources gives a
//! buffer size, so that is our choice: 100 ms at the link's rate. It is short beside the seconds that Chirichella and
//! Rossi ("To the Moon and back", 2013) saw at one percent of peers, so raise it to study bloated buffers.

use std::time::Duration;

use crate::{Jitter, LinkConfig, Loss};

/// An access link with a name.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// What scenario files call it.
    pub name: &'static str,
    /// What it stands for, in a sentence.
    pub about: &'static str,
    /// Where its values come from.
    pub source: &'static str,
    /// From the customer to the network.
    pub up: LinkConfig,
    /// From the network to the customer.
    pub down: LinkConfig,
}

/// The link called `name`.
pub fn link(name: &str) -> Option<&'static Preset> {
    LINKS.iter().find(|preset| preset.name == name)
}

/// Both directions' delay; rates in kbit/s with 0 for none.
const fn preset(
    name: &'static str,
    about: &'static str,
    source: &'static str,
    delay_us: u64,
    (down_kbps, up_kbps): (u64, u64),
    (jitter_us, loss): (u64, Loss),
) -> Preset {
    let base = LinkConfig {
        delay: Duration::from_micros(delay_us),
        jitter: if jitter_us == 0 {
            Jitter::None
        } else {
            Jitter::Uniform { plus_minus: Duration::from_micros(jitter_us) }
        },
        rate_bps: None,
        queue_bytes: None,
        loss,
        may_reorder: false,
    };
    Preset { name, about, source, up: at_rate(base, up_kbps), down: at_rate(base, down_kbps) }
}

/// The same link at this rate, with 100 ms of queue.
const fn at_rate(config: LinkConfig, kbps: u64) -> LinkConfig {
    if kbps == 0 {
        return config;
    }
    LinkConfig { rate_bps: Some(kbps * 1000), queue_bytes: Some(kbps * 100 / 8), ..config }
}

/// A tenth of a percent.
const PER_MILLE: u32 = 1_000_000;

/// The links.
pub const LINKS: &[Preset] = &[
    preset(
        "lan",
        "two machines in one room",
        "IBM Cloud, network latency table of 27 July to 25 August 2024: 0.09 ms round trip within a zone; IEEE 802.3 \
         clause 40 (1000BASE-T) for the rate",
        45,
        (1_000_000, 1_000_000),
        (0, Loss::NONE),
    ),
    preset(
        "wifi-good",
        "a wireless hop near its access point",
        "n0-computer/patchbay lab.rs at 2920b8c, `Wifi`: 5 ms with 2 ms of jitter each way, 0.1 % loss, no limit of rate; \
         its authors give no measurement",
        5_000,
        (0, 0),
        (2_000, Loss::per_billion(PER_MILLE)),
    ),
    preset(
        "wifi-bad",
        "a crowded or distant wireless hop",
        "n0-computer/patchbay lab.rs at 2920b8c, `WifiBad`: 40 ms with 15 ms of jitter each way, 2 % loss, 20 Mbit/s; its \
         authors give no measurement",
        40_000,
        (20_000, 20_000),
        (15_000, Loss::percent(2)),
    ),
    preset(
        "cable",
        "a cable modem",
        "WebPageTest connectivity.ini, Cable: 5/1 Mbit/s, 28 ms round trip",
        14_000,
        (5_000, 1_000),
        (0, Loss::NONE),
    ),
    preset(
        "dsl",
        "a telephone line",
        "WebPageTest connectivity.ini, DSL: 1.5/0.384 Mbit/s, 50 ms round trip",
        25_000,
        (1_500, 384),
        (0, Loss::NONE),
    ),
    preset(
        "fibre",
        "fibre to the home",
        "WebPageTest connectivity.ini, FIOS: 20/5 Mbit/s, 4 ms round trip",
        2_000,
        (20_000, 5_000),
        (0, Loss::NONE),
    ),
    preset(
        "lte",
        "a phone in a 4G network",
        "ERRANT (Trevisan et al., arXiv:2106.06335), medians of the 909 LTE tests of its sample: 85 ms round trip, \
         27.1/10.6 Mbit/s",
        42_500,
        (27_100, 10_600),
        (0, Loss::NONE),
    ),
    preset(
        "3g",
        "a phone in a 3G network",
        "ERRANT (Trevisan et al., arXiv:2106.06335), medians of the 91 3G tests of its sample: 80 ms round trip, \
         13.2/2.7 Mbit/s",
        40_000,
        (13_200, 2_700),
        (0, Loss::NONE),
    ),
    preset(
        "leo",
        "satellites in a low orbit",
        "Michel et al., IMC 2022, by the authors' APNIC article of 28 November 2022: round trip of 20 ms at least, 40, 50 and 60 ms \
         at the quartiles (the jitter gives 20, 41, 50 and 59), 100 Mbit/s promised; Ookla, second quarter of 2023: 10 to 15 \
         Mbit/s up in Europe. Handovers and their bursts of loss are left out",
        25_000,
        (100_000, 10_000),
        (15_000, Loss::NONE),
    ),
    preset(
        "geo",
        "a geostationary satellite",
        "Michel et al., IMC 2022: 600 ms round trip at least, a plan of 100/10 Mbit/s",
        300_000,
        (100_000, 10_000),
        (0, Loss::NONE),
    ),
];

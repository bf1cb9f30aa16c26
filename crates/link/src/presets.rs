//! Named access links, each with the source of its values.
//!
//! Published figures are round-trip times; half of one is each direction's delay. None of the sources gives a
//! buffer size, so that is our choice: 100 ms at the link's rate. It is short beside the seconds that Chirichella and
//! Rossi ("To the Moon and back", 2013) saw at one percent of peers, so raise it to study bloated buffers.

use std::sync::LazyLock;
use std::time::Duration;

use crate::{Jitter, LinkConfig, Loss, Outages, Share, StepTo, Steps};

/// An access link with a name.
#[derive(Clone, Debug)]
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
fn preset(
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
        loss,
        ..LinkConfig::default()
    };
    Preset { name, about, source, up: at_rate(&base, up_kbps), down: at_rate(&base, down_kbps) }
}

/// The same link at this rate, with 100 ms of queue.
fn at_rate(config: &LinkConfig, kbps: u64) -> LinkConfig {
    if kbps == 0 {
        return config.clone();
    }
    LinkConfig { rate_bps: Some(kbps * 1000), queue_bytes: Some(kbps * 100 / 8), ..config.clone() }
}

/// The same change in both directions.
fn both(mut preset: Preset, change: impl Fn(&mut LinkConfig)) -> Preset {
    change(&mut preset.up);
    change(&mut preset.down);
    preset
}

/// A tenth of a percent.
const PER_MILLE: u32 = 1_000_000;

/// The links.
pub static LINKS: LazyLock<Vec<Preset>> = LazyLock::new(|| {
    let mut links = wired_and_wireless();
    links.extend(cellular());
    links.extend(satellites());
    links.extend(G1050.iter().map(G1050::preset));
    links
});

fn wired_and_wireless() -> Vec<Preset> {
    vec![
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
    ]
}

fn cellular() -> Vec<Preset> {
    let cell =
        |name, about, source, delay_us, rates| preset(name, about, source, delay_us, rates, (0, Loss::NONE));
    vec![
        cell(
            "lte",
            "a phone in a 4G network",
            "ERRANT (Trevisan et al., arXiv:2106.06335), medians of the 909 LTE tests of its sample: 85 ms round trip, \
             27.1/10.6 Mbit/s",
            42_500,
            (27_100, 10_600),
        ),
        cell(
            "lte-good",
            "a phone close to a 4G mast",
            "ERRANT (arXiv:2106.06335), the best tenth of each figure of the 909 LTE tests of its sample: 49 ms round trip, \
             80.1/37.1 Mbit/s; that one phone has all three is our choice",
            24_500,
            (80_100, 37_100),
        ),
        cell(
            "lte-bad",
            "a phone at the edge of a 4G cell",
            "ERRANT (arXiv:2106.06335), the worst tenth of each figure of the 909 LTE tests of its sample: 166 ms round trip, \
             6.7/2.2 Mbit/s; that one phone has all three is our choice",
            83_000,
            (6_700, 2_200),
        ),
        cell(
            "3g",
            "a phone in a 3G network",
            "ERRANT (Trevisan et al., arXiv:2106.06335), medians of the 91 3G tests of its sample: 80 ms round trip, \
             13.2/2.7 Mbit/s",
            40_000,
            (13_200, 2_700),
        ),
        cell(
            "3g-bad",
            "a phone at the edge of a 3G cell",
            "ERRANT (arXiv:2106.06335), the worst tenth of each figure of the 91 3G tests of its sample: 176 ms round trip, \
             4.8/1.0 Mbit/s; that one phone has all three is our choice",
            88_000,
            (4_800, 1_000),
        ),
    ]
}

fn satellites() -> Vec<Preset> {
    let leo = preset(
        "leo",
        "satellites in a low orbit that take over from each other every 15 seconds",
        "Michel et al., IMC 2022, by the authors' APNIC article of 28 November 2022: round trip of 20 ms at least, 40, 50 and \
         60 ms at the quartiles, all of which the step and the jitter give, 100 Mbit/s promised; Ookla, second quarter of \
         2023: 10 to 15 Mbit/s up in Europe; Mohan et al., arXiv:2310.09242: reconfiguration every 15 s; Kassem et al., IMC \
         2022: up to 50 % loss at a handover. For how long, 100 ms, is our choice",
        25_000,
        (100_000, 10_000),
        (5_000, Loss::NONE),
    );
    let handover = Steps {
        every: Duration::from_secs(15),
        first: Duration::from_secs(15),
        by: Duration::from_millis(10),
        to: StepTo::Anywhere,
        disturbed: Duration::from_millis(100),
        loss: Share::percent(50),
    };
    vec![
        both(leo, |link| link.steps = Some(handover)),
        preset(
            "geo",
            "a geostationary satellite",
            "Michel et al., IMC 2022: 600 ms round trip at least, a plan of 100/10 Mbit/s",
            300_000,
            (100_000, 10_000),
            (0, Loss::NONE),
        ),
    ]
}

/// A severity of the core network of ITU-T G.1050: times in milliseconds, intervals in seconds with 0 for never.
struct G1050 {
    name: &'static str,
    about: &'static str,
    delay: u64,
    /// In thousandths of a percent.
    loss: u32,
    jitter: u64,
    flap: (u64, u64),
    failure: (u64, u64),
}

const G1050_SOURCE: &str = "ITU-T G.1050 (11/2007) and TIA-921, core network for a region, with the values of \
     freeswitch/spandsp spandsp-sim/g1050.c: base delay, uniform jitter that may reorder, independent loss, route flaps, link \
     failures. Without its LAN and access segments, whose rates and occupancy are the scenario's to choose";

const fn g1050(
    name: &'static str,
    about: &'static str,
    delay: u64,
    loss: u32,
    jitter: u64,
    flap: (u64, u64),
    failure: (u64, u64),
) -> G1050 {
    G1050 { name, about, delay, loss, jitter, flap, failure }
}

/// The eight severities.
const G1050: [G1050; 8] = [
    g1050("g1050-a", "the best of eight networks of ITU-T G.1050", 4, 0, 5, (0, 0), (0, 0)),
    g1050("g1050-b", "ITU-T G.1050, severity B", 8, 10, 10, (3600, 2), (3600, 64)),
    g1050("g1050-c", "ITU-T G.1050, severity C", 16, 20, 16, (1800, 4), (1800, 128)),
    g1050("g1050-d", "ITU-T G.1050, severity D", 32, 40, 40, (900, 8), (900, 256)),
    g1050("g1050-e", "ITU-T G.1050, severity E", 64, 100, 70, (480, 16), (480, 400)),
    g1050("g1050-f", "ITU-T G.1050, severity F", 128, 200, 100, (240, 32), (240, 800)),
    g1050("g1050-g", "ITU-T G.1050, severity G", 256, 500, 150, (120, 64), (120, 1600)),
    g1050("g1050-h", "the worst of eight networks of ITU-T G.1050", 512, 1000, 500, (60, 128), (60, 3000)),
];

impl G1050 {
    fn preset(&self) -> Preset {
        let half = Duration::from_millis(self.jitter) / 2;
        let (flap, failure) = (self.flap, self.failure);
        let config = LinkConfig {
            // From the base delay to the base delay and the jitter (§II.3.2).
            delay: Duration::from_millis(self.delay) + half,
            jitter: Jitter::Uniform { plus_minus: half },
            may_reorder: true,
            loss: Loss::per_billion(self.loss * 10_000),
            steps: (flap.0 > 0).then(|| Steps {
                every: Duration::from_secs(flap.0),
                first: Duration::from_secs(flap.0),
                by: Duration::from_millis(flap.1),
                to: StepTo::UpAndBack,
                disturbed: Duration::ZERO,
                loss: Share::NONE,
            }),
            outages: (failure.0 > 0).then(|| Outages {
                every: Duration::from_secs(failure.0),
                lasts: Duration::from_millis(failure.1),
                first: Duration::from_secs(failure.0),
                random: false,
            }),
            ..LinkConfig::default()
        };
        Preset { name: self.name, about: self.about, source: G1050_SOURCE, up: config.clone(), down: config }
    }
}

//! How the delay varies from packet to packet.
//!
//! All in whole numbers: a draw is turned into a delay by the inverse of the distribution function, from a table or
//! computed, so that every machine gets the same one.

use std::sync::Arc;
use std::time::Duration;

use rand::{Rng as _, RngExt as _};
use rand_pcg::Pcg64Mcg;

use crate::{Share, to_ns};

/// Random variation of the delay. A delay never falls below zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Jitter {
    /// None.
    #[default]
    None,
    /// Uniform over whole nanoseconds from `delay - plus_minus` to `delay + plus_minus`.
    Uniform {
        /// Half the width.
        plus_minus: Duration,
    },
    /// The normal distribution around the delay, cut off at six standard deviations.
    Normal {
        /// The standard deviation.
        std_dev: Duration,
    },
    /// The Pareto distribution of shape 3, moved so that its mean is the delay: most packets are a little early (by 0.58
    /// standard deviations at most), and a few are very late. The shape is that of tc-netem's table
    /// (iproute2 `netem/pareto.c`), with the standard deviation that is asked for and the tail not cut off.
    Pareto {
        /// The standard deviation.
        std_dev: Duration,
    },
    /// On top of the delay, what was measured.
    Quantiles(Quantiles),
}

/// Half the width of a uniform jitter in nanoseconds, at most a quarter of all that there are.
pub(crate) fn half_width(plus_minus: Duration) -> u64 {
    to_ns(plus_minus).min(u64::MAX / 4)
}

/// `delay`, varied by at most `half` to either side.
#[inline]
pub(crate) fn vary_evenly(delay: u64, half: u64, rng: &mut Pcg64Mcg) -> u64 {
    let offset = rng.random_range(0..=2 * half);
    delay.saturating_add(offset).saturating_sub(half)
}

impl Jitter {
    /// A delay of `delay`, varied.
    #[inline]
    pub(crate) fn vary(&self, delay: u64, rng: &mut Pcg64Mcg) -> u64 {
        match self {
            Jitter::None => delay,
            Jitter::Uniform { plus_minus } => vary_evenly(delay, half_width(*plus_minus), rng),
            _ => self.vary_more(delay, rng),
        }
    }

    #[cold]
    fn vary_more(&self, delay: u64, rng: &mut Pcg64Mcg) -> u64 {
        match self {
            Jitter::None | Jitter::Uniform { .. } => delay,
            Jitter::Normal { std_dev } => {
                let draw = rng.next_u64();
                let offset = scaled(to_ns(*std_dev), normal(draw >> 1), u128::from(SIXTEENTHS));
                if draw & 1 == 0 { delay.saturating_add(offset) } else { delay.saturating_sub(offset) }
            }
            Jitter::Pareto { std_dev } => {
                // One draw of 2^32, from 1 on: the share of packets that are at least as late.
                let share = (rng.next_u64() >> 32) + 1;
                let std_dev = to_ns(*std_dev);
                let late = scaled(std_dev, pareto(share), 1 << 32);
                delay.saturating_add(late).saturating_sub(scaled(std_dev, PARETO_MEAN, 1 << 32))
            }
            Jitter::Quantiles(quantiles) => delay.saturating_add(quantiles.at(rng.next_u64())),
        }
    }

    /// How far below the delay it may go.
    pub fn early_by(&self) -> Duration {
        match self {
            Jitter::None | Jitter::Quantiles(_) => Duration::ZERO,
            Jitter::Uniform { plus_minus } => *plus_minus,
            Jitter::Normal { std_dev } => std_dev.saturating_mul(6),
            Jitter::Pareto { std_dev } => *std_dev,
        }
    }
}

/// `value * numerator / denominator`, at most all that fits.
fn scaled(value: u64, numerator: u128, denominator: u128) -> u64 {
    u64::try_from(u128::from(value).saturating_mul(numerator) / denominator).unwrap_or(u64::MAX)
}

// ---- normal ---------------------------------------------------------------------------------

/// [`normal`] answers in units of 2^-32 / 16 standard deviations.
const SIXTEENTHS: u64 = 16 << 32;

/// How many standard deviations, in units of 1 / [`SIXTEENTHS`], hold the share `draw / 2^63` around the mean.
fn normal(draw: u64) -> u128 {
    let above = WITHIN.partition_point(|within| *within <= draw);
    let Some(&next) = WITHIN.get(above) else { return 96 << 32 };
    // The first entry is zero, so that there is one before.
    let last = WITHIN[above - 1];
    let part = (u128::from(draw - last) << 32) / u128::from(next - last);
    ((above as u128 - 1) << 32) + part
}

/// The share of a normal distribution within 0, 1/16, 2/16 … 6 standard deviations around its mean, erf(z / √2), times
/// 2^63 and rounded down. Straight lines between them are off by 0.0002 at most.
const WITHIN: [u64; 97] = [
    0,
    459_649_863_495_922_213,
    917_508_304_121_718_278,
    1_371_804_817_277_129_141,
    1_820_810_328_329_118_120,
    2_262_856_902_212_989_365,
    2_696_356_277_125_575_578,
    3_119_816_880_119_412_788,
    3_531_859_022_844_245_747,
    3_931_228_023_553_588_041,
    4_316_805_055_183_159_473,
    4_687_615_577_031_801_755,
    5_042_835_267_456_296_085,
    5_381_793_435_131_521_055,
    5_703_973_944_981_621_791,
    6_009_013_750_132_710_277,
    6_296_699_171_631_786_404,
    6_566_960_111_911_944_111,
    6_819_862_425_024_499_453,
    7_055_598_695_766_302_675,
    7_274_477_700_576_958_139,
    7_476_912_835_346_241_968,
    7_663_409_799_231_306_247,
    7_834_553_819_679_879_128,
    7_990_996_692_767_347_041,
    8_133_443_895_552_190_469,
    8_262_642_004_450_863_353,
    8_379_366_626_741_048_522,
    8_484_411_022_379_356_587,
    8_578_575_561_523_933_876,
    8_662_658_130_599_108_932,
    8_737_445_567_462_949_380,
    8_803_706_175_163_590_681,
    8_862_183_334_686_975_327,
    8_913_590_210_648_864_276,
    8_958_605_520_552_788_748,
    8_997_870_318_351_105_462,
    9_031_985_726_785_438_319,
    9_061_511_540_382_552_134,
    9_086_965_611_954_726_795,
    9_108_823_929_806_795_194,
    9_127_521_290_306_661_228,
    9_143_452_470_689_721_244,
    9_156_973_809_554_450_209,
    9_168_405_107_057_475_561,
    9_178_031_762_917_452_568,
    9_186_107_077_584_035_912,
    9_192_854_649_940_581_524,
    9_198_470_813_339_691_172,
    9_203_127_060_312_773_209,
    9_206_972_414_687_069_477,
    9_210_135_717_871_951_705,
    9_212_727_803_573_671_923,
    9_214_843_542_042_249_769,
    9_216_563_741_065_643_328,
    9_217_956_896_261_965_460,
    9_219_080_787_769_704_725,
    9_219_983_924_214_929_214,
    9_220_706_837_880_860_867,
    9_221_283_237_372_610_573,
    9_221_741_025_822_984_392,
    9_222_103_193_895_550_528,
    9_222_388_597_582_949_240,
    9_222_612_631_145_834_568,
    9_222_787_805_562_183_681,
    9_222_924_242_624_645_478,
    9_223_030_094_395_765_473,
    9_223_111_897_161_127_382,
    9_223_174_868_355_280_344,
    9_223_223_154_214_108_050,
    9_223_260_035_162_371_677,
    9_223_288_095_202_305_271,
    9_223_309_360_848_197_791,
    9_223_325_414_467_440_235,
    9_223_337_486_250_597_199,
    9_223_346_528_447_921_392,
    9_223_353_274_980_498_484,
    9_223_358_289_061_553_883,
    9_223_362_001_046_152_998,
    9_223_364_738_362_984_715,
    9_223_366_749_066_591_025,
    9_223_368_220_278_163_950,
    9_223_369_292_553_445_979,
    9_223_370_071_022_841_673,
    9_223_370_633_987_172_424,
    9_223_371_039_518_398_505,
    9_223_371_330_504_207_012,
    9_223_371_538_485_083_043,
    9_223_371_686_559_176_928,
    9_223_371_791_571_157_715,
    9_223_371_865_753_869_169,
    9_223_371_917_953_885_869,
    9_223_371_954_542_222_538,
    9_223_371_980_087_979_561,
    9_223_371_997_854_360_643,
    9_223_372_010_162_240_699,
    9_223_372_018_655_446_013,
];

// ---- Pareto ---------------------------------------------------------------------------------

/// 1 over √0.75, the standard deviation of a Pareto distribution of shape 3 and scale 1, times 2^32.
const PARETO_UNIT: u128 = 4_959_401_049;
/// Its mean, 1.5, in standard deviations times 2^32.
const PARETO_MEAN: u128 = PARETO_UNIT * 3 / 2;

/// The value that `share / 2^32` of a Pareto distribution of shape 3 reach, in standard deviations times 2^32: the inverse
/// cube root of the share.
fn pareto(share: u64) -> u128 {
    // (2^32 / share)^(1/3) with 20 bits after the point.
    let root = cube_root((1 << 92) / u128::from(share.max(1)));
    (root * PARETO_UNIT) >> 20
}

/// The largest whole number whose cube is not above `value`, which is below 2^93.
fn cube_root(value: u128) -> u128 {
    let mut root = 0_u128;
    for bit in (0..31).rev() {
        let next = root | 1 << bit;
        if next * next * next <= value {
            root = next;
        }
    }
    root
}

// ---- measured -------------------------------------------------------------------------------

/// A measured distribution: which share of the packets takes how long at most, straight lines in between. What lies before
/// the first point and after the last takes as long as these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantiles(Arc<[(Share, Duration)]>);

/// Why points are no distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuantilesError {
    /// Fewer than two points, or more than a thousand.
    Count(usize),
    /// The point of this number, from 0, does not lie above the one before it.
    Order(usize),
}

impl std::fmt::Display for QuantilesError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            QuantilesError::Count(count) => {
                write!(f, "a distribution has 2 to {} points, not {count}", Quantiles::MAX)
            }
            QuantilesError::Order(i) => {
                write!(f, "quantile {} does not lie above the one before it", i + 1)
            }
        }
    }
}

impl std::error::Error for QuantilesError {}

impl Quantiles {
    /// Most points.
    pub const MAX: usize = 1000;

    /// The distribution through these points: shares must grow, times must not shrink.
    ///
    /// # Errors
    /// If they do not, or if there are fewer than two points or more than [`Self::MAX`].
    pub fn new(points: &[(Share, Duration)]) -> Result<Quantiles, QuantilesError> {
        if !(2..=Self::MAX).contains(&points.len()) {
            return Err(QuantilesError::Count(points.len()));
        }
        let above = |pair: &[(Share, Duration)]| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1;
        match points.windows(2).position(|pair| !above(pair)) {
            Some(i) => Err(QuantilesError::Order(i + 1)),
            None => Ok(Quantiles(points.into())),
        }
    }

    /// The points.
    pub fn points(&self) -> &[(Share, Duration)] {
        &self.0
    }

    /// Nanoseconds that the share `draw / 2^64` stays below.
    fn at(&self, draw: u64) -> u64 {
        // In parts of a billion with 32 bits after the point.
        let share = (u128::from(draw) * u128::from(Share::ALL.parts_per_billion())) >> 32;
        let parts = |point: &(Share, Duration)| u128::from(point.0.parts_per_billion()) << 32;
        let above = self.0.partition_point(|point| parts(point) <= share);
        let (Some(from), Some(to)) = (self.0.get(above.wrapping_sub(1)), self.0.get(above)) else {
            let end = if above == 0 { self.0.first() } else { self.0.last() };
            return end.map_or(0, |(_, time)| to_ns(*time));
        };
        let (low, high) = (to_ns(from.1), to_ns(to.1));
        // Below 2^32 · 10^9, times nanoseconds: within 128 bits.
        let part = u128::from(high - low) * (share - parts(from)) / (parts(to) - parts(from));
        low + u64::try_from(part).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_normal_table_has_the_known_shares() {
        // 68.27 %, 95.45 % and 99.73 % within one, two and three standard deviations.
        for (draw, sixteenths) in [(0.682_689_492, 16_u128), (0.954_499_736, 32), (0.997_300_204, 48)] {
            let got = normal((draw * (1_u64 << 63) as f64) as u64);
            assert!(got.abs_diff(sixteenths << 32) < 1 << 16, "{got}");
        }
        assert_eq!((normal(0), normal(u64::MAX >> 1)), (0, 96 << 32));
    }

    #[test]
    fn cube_roots_are_exact() {
        for root in [0_u128, 1, 2, 1 << 20, (1 << 30) + 7, (1 << 31) - 1] {
            let cube = root * root * root;
            assert_eq!(cube_root(cube), root);
            assert_eq!(cube_root(cube + 1), root.max(1));
        }
    }

    #[test]
    fn half_of_a_pareto_distribution_reaches_its_median() {
        // 2^(1/3) / √0.75
        let median = pareto(1 << 31) as f64 / (1_u64 << 32) as f64;
        assert!((median - 1.454_8).abs() < 1e-4, "{median}");
    }

    #[test]
    fn quantiles_lie_on_straight_lines() {
        let ms = Duration::from_millis;
        let points =
            [(Share::percent(10), ms(10)), (Share::percent(50), ms(20)), (Share::percent(90), ms(100))];
        let quantiles = Quantiles::new(&points).expect("points in order");
        for (percent, us) in
            [(0, 10_000), (5, 10_000), (30, 15_000), (50, 20_000), (70, 60_000), (95, 100_000)]
        {
            let got = quantiles.at((percent * (1_u128 << 64) / 100) as u64);
            assert!(got.abs_diff(us * 1000) <= 1, "{percent} %: {got} ns");
        }
    }

    #[test]
    fn points_out_of_order_are_refused() {
        let point = |percent, ms| (Share::percent(percent), Duration::from_millis(ms));
        assert_eq!(Quantiles::new(&[point(1, 1)]), Err(QuantilesError::Count(1)));
        assert_eq!(Quantiles::new(&[point(1, 1), point(1, 2)]), Err(QuantilesError::Order(1)));
        assert_eq!(Quantiles::new(&[point(1, 1), point(2, 2), point(3, 1)]), Err(QuantilesError::Order(2)));
    }
}

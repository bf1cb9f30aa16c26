//! One random stream per component, derived from the seed of the run and the component's stable name, so that adding a
//! host does not shift its neighbours' numbers.

use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use rand_pcg::Pcg64Mcg;

/// The seed of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seed(pub u64);

impl Seed {
    /// 32 bytes that belong to `purpose` alone.
    pub fn bytes(self, purpose: &str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("punchbag 2026 random stream of a component");
        hasher.update(&self.0.to_le_bytes());
        hasher.update(purpose.as_bytes());
        *hasher.finalize().as_bytes()
    }

    /// For keys, nonces and everything inside a core.
    pub fn chacha(self, purpose: &str) -> ChaCha12Rng {
        ChaCha12Rng::from_seed(self.bytes(purpose))
    }

    /// For links and NATs.
    pub fn pcg(self, purpose: &str) -> Pcg64Mcg {
        let mut seed = [0; 16];
        seed.copy_from_slice(&self.bytes(purpose)[..16]);
        Pcg64Mcg::from_seed(seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn streams_differ_by_name_and_by_seed_and_repeat() {
        let first = |seed: u64, name: &str| Seed(seed).chacha(name).next_u64();
        assert_eq!(first(1, "host takkie"), first(1, "host takkie"));
        assert_ne!(first(1, "host takkie"), first(1, "host flappie"));
        assert_ne!(first(1, "host takkie"), first(2, "host takkie"));
    }
}

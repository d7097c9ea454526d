//! Counter-based random numbers: each is a function of a seed and an index, so any thread can draw any of them.

/// A uniform number in [0, 1) with 24 random bits, for `index` of the stream `seed`.
///
/// The seed is spread over two 32-bit keys (`SplitMix64`), between which the index passes MurmurHash3's finaliser
/// twice. Only 32-bit arithmetic depends on the index: a loop over consecutive indices vectorises.
#[inline(always)]
pub(crate) fn uniform(seed: u64, index: u64) -> f32 {
    (bits(spread(seed), index) >> 8) as i32 as f32 * (1.0 / (1 << 24) as f32)
}

/// 32 random bits for `index` of the stream with this key, which is `spread(seed)`.
#[inline(always)]
pub(crate) fn bits(key: u64, index: u64) -> u32 {
    let high = (index >> 32) as u32;
    let x = finalise(index as u32 ^ key as u32);
    finalise(x.wrapping_add((key >> 32) as u32).wrapping_add(high.wrapping_mul(0x9e37_79b9)))
}

/// One step of `SplitMix64` (Steele, Lea and Flood 2014).
#[inline(always)]
pub(crate) fn spread(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// MurmurHash3's 32-bit finaliser: a bijection in which each bit of `x` turns half of the result's.
#[inline(always)]
fn finalise(x: u32) -> u32 {
    let x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
    let x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
    x ^ (x >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Standard deviations of a mean of n uniform numbers: 1/√(12 n).
    fn deviations(mean: f64, n: usize) -> f64 {
        (mean - 0.5).abs() * (12.0 * n as f64).sqrt()
    }

    #[test]
    fn numbers_are_uniform_within_and_across_seeds() {
        let n = 1 << 16;
        for seed in [0, 1, 2, 1 << 32, u64::MAX] {
            let mean = (0..n).map(|i| uniform(seed, i as u64) as f64).sum::<f64>() / n as f64;
            assert!(deviations(mean, n) < 4.0, "seed {seed}: mean {mean}");
        }
        let mean = (0..n).map(|s| uniform(s as u64, 7) as f64).sum::<f64>() / n as f64;
        assert!(deviations(mean, n) < 4.0, "over seeds: mean {mean}");
    }

    #[test]
    fn neighbouring_seeds_and_halves_of_the_index_share_nothing() {
        let n = 1 << 14;
        let draw = |seed: u64, first: u64| (0..n).map(move |i| uniform(seed, first + i) as f64 - 0.5);
        for (seed, first) in [(1, 0), (2, 0), (0, 1), (0, 1 << 32), (1 << 32, 0)] {
            let product: f64 = draw(0, 0).zip(draw(seed, first)).map(|(a, b)| a * b).sum();
            let correlation = product * 12.0 / n as f64;
            assert!(correlation.abs() < 4.0 / (n as f64).sqrt(), "seed {seed} from {first}: {correlation}");
        }
    }
}

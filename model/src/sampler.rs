//! Choosing the next token.

use crate::error::{Result, input};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// How the next token is drawn from the logits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampler {
    /// Divides the logits; at 0 the likeliest token is taken.
    pub temperature: f64,
    /// Only this many of the likeliest tokens; 0 for all.
    pub top_k: usize,
    /// Only the likeliest tokens that together reach this probability (Holtzman et al. 2020).
    pub top_p: f64,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for Sampler {
    fn default() -> Sampler {
        Sampler {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            seed: 0,
        }
    }
}

/// A sampler at work.
pub(crate) struct Draws {
    settings: Sampler,
    rng: ChaCha8Rng,
}

impl Sampler {
    pub(crate) fn start(self) -> Result<Draws> {
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return input(
                "temperature",
                format!("{} is not a finite number of at least 0", self.temperature),
            );
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return input("top_p", format!("{} is not in 0 < p ≤ 1", self.top_p));
        }
        Ok(Draws {
            settings: self,
            rng: ChaCha8Rng::seed_from_u64(self.seed),
        })
    }
}

impl Draws {
    /// An id, given each id's logit.
    pub(crate) fn draw(&mut self, logits: &[f64]) -> u32 {
        let Sampler {
            temperature,
            top_k,
            top_p,
            ..
        } = self.settings;
        if temperature == 0.0 {
            return likeliest(logits);
        }
        let mut ids: Vec<usize> = (0..logits.len()).collect();
        ids.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        if top_k > 0 {
            ids.truncate(top_k);
        }
        let Some(&first) = ids.first() else { return 0 };
        let weight = |id: usize| ((logits[id] - logits[first]) / temperature).exp();
        let total: f64 = ids.iter().map(|&id| weight(id)).sum();
        let mut mass = 0.0;
        let reached = ids.iter().position(|&id| {
            mass += weight(id);
            mass >= top_p * total
        });
        ids.truncate(reached.map_or(ids.len(), |i| i + 1));
        let mut left = self.rng.random::<f64>() * mass;
        let drawn = ids.iter().find(|&&id| {
            left -= weight(id);
            left < 0.0
        });
        *drawn.unwrap_or(&first) as u32
    }
}

/// The id of the largest logit, the first among equals.
pub(crate) fn likeliest(logits: &[f64]) -> u32 {
    let better = |best: usize, i: usize| if logits[i] > logits[best] { i } else { best };
    (0..logits.len()).reduce(better).unwrap_or(0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f64; 4] = [1.0, 3.0, 2.0, -1.0];

    fn drawn(settings: Sampler) -> Vec<usize> {
        let mut draws = settings.start().unwrap();
        let mut counts = vec![0; LOGITS.len()];
        for _ in 0..4000 {
            counts[draws.draw(&LOGITS) as usize] += 1;
        }
        counts
    }

    #[test]
    fn zero_temperature_takes_the_likeliest() {
        assert_eq!(drawn(Sampler::default()), [0, 4000, 0, 0]);
        assert_eq!(likeliest(&[2.0, 2.0]), 0);
    }

    #[test]
    fn draws_follow_the_softmax() {
        let counts = drawn(Sampler {
            temperature: 1.0,
            ..Sampler::default()
        });
        let total: f64 = LOGITS.iter().map(|l| l.exp()).sum();
        for (count, logit) in counts.iter().zip(LOGITS) {
            let p = logit.exp() / total;
            // Five standard deviations of a binomial.
            let slack = 5.0 * (4000.0 * p * (1.0 - p)).sqrt();
            assert!((*count as f64 - 4000.0 * p).abs() < slack, "{counts:?}");
        }
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let warm = Sampler {
            temperature: 1.0,
            ..Sampler::default()
        };
        let counts = drawn(Sampler { top_k: 2, ..warm });
        assert!(
            counts[1] > 0 && counts[2] > 0 && counts[0] == 0 && counts[3] == 0,
            "{counts:?}"
        );
        // The likeliest two have 0.66 and 0.24 of the mass.
        let counts = drawn(Sampler { top_p: 0.6, ..warm });
        assert_eq!(counts, [0, 4000, 0, 0]);
        let counts = drawn(Sampler { top_p: 0.7, ..warm });
        assert!(
            counts[1] > 0 && counts[2] > 0 && counts[0] == 0 && counts[3] == 0,
            "{counts:?}"
        );
    }

    #[test]
    fn a_seed_repeats_its_draws() {
        let settings = Sampler {
            temperature: 2.0,
            seed: 7,
            ..Sampler::default()
        };
        assert_eq!(drawn(settings), drawn(settings));
        assert!(Sampler { top_p: 0.0, ..settings }.start().is_err());
    }
}

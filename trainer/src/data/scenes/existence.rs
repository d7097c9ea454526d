//! Which pairs to ask after in `is there a ... ?`, such that the question alone says nothing about its answer.
//!
//! Absent pairs are drawn in one of three ways ([`Negatives`]), and each way names some pairs more often than others.
//! Were present pairs drawn evenly from the scene, asking after a rare pair would hint at yes or at no. They are
//! therefore drawn by weights `u`, one set per way, which solve
//!
//! ```text
//! sum over scenes S with k  P(S) u_k / (sum of u over the askable pairs of S)  =  P(k is the absent pair asked after)
//! ```
//!
//! for every pair `k`. Both sides are sums over all sets of one to four pairs, so the weights are exact.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::pairs::{Pair, PairSet};
use super::questions::Negatives;
use super::split::Split;
use super::world::World;

type Weights = [f64; Pair::COUNT];

/// The pairs to draw from for one question about a scene, if neither set is empty.
pub(super) struct Candidates {
    /// Present pairs, to be drawn by [`present_weight`]; the answer is yes.
    pub(super) present: PairSet,
    /// Absent pairs, to be drawn evenly; the answer is no.
    pub(super) absent: PairSet,
}

/// The ways to draw absent pairs that the questions about a split use.
pub(super) fn ways(split: Split) -> &'static [Negatives] {
    match split {
        Split::Train | Split::HeldOut => &Negatives::ALL,
        Split::Compositional => &[Negatives::Adversarial],
    }
}

/// Present and absent pairs to ask after in a scene that shows the pairs `shown`.
pub(super) fn candidates(world: World, split: Split, negatives: Negatives, shown: PairSet) -> Candidates {
    let askable = match (split, negatives) {
        (Split::Compositional, _) => world.held_out(),
        (_, Negatives::Popular) => world.popular(),
        _ => world.pairs_of(split),
    };
    let absent = askable.without(shown);
    let absent = if negatives == Negatives::Adversarial { nearest(absent, shown) } else { absent };
    Candidates { present: askable.and(shown), absent }
}

/// The pairs of `absent` whose colour and shape both occur in `shown`, else those that share one, else all.
fn nearest(absent: PairSet, shown: PairSet) -> PairSet {
    let shared = |pair: Pair| {
        let colour = shown.iter().any(|other| other.colour == pair.colour);
        let shape = shown.iter().any(|other| other.shape == pair.shape);
        usize::from(colour) + usize::from(shape)
    };
    let most = absent.iter().map(shared).max().unwrap_or(0);
    absent.iter().filter(|&pair| shared(pair) == most).collect()
}

/// Weight by which a present pair is drawn.
pub(super) fn present_weight(world: World, split: Split, negatives: Negatives, pair: Pair) -> f64 {
    static SMALL: LazyLock<[Weights; 4]> = LazyLock::new(|| all_weights(World::Small));
    static FULL: LazyLock<[Weights; 4]> = LazyLock::new(|| all_weights(World::Full));
    let weights: &[Weights; 4] = match world {
        World::Small => &SMALL,
        World::Full => &FULL,
    };
    match split {
        Split::Train | Split::HeldOut => weights[negatives as usize][pair.index()],
        Split::Compositional => weights[3][pair.index()],
    }
}

/// Weights for each way to draw absent pairs, and for the compositional split's.
fn all_weights(world: World) -> [Weights; 4] {
    let sets = pair_sets(world, Split::Train);
    let [random, popular, adversarial] = Negatives::ALL.map(|negatives| balance(&sets, world, Split::Train, negatives));
    let unseen = Split::Compositional;
    let compositional = balance(&pair_sets(world, unseen), world, unseen, Negatives::Adversarial);
    [random, popular, adversarial, compositional]
}

/// Every set of pairs that scenes of `split` show, with its probability.
fn pair_sets(world: World, split: Split) -> Vec<(PairSet, f64)> {
    let weight = |set: PairSet| set.iter().map(Pair::frequency).sum::<f64>();
    let grow = |level: &BTreeMap<PairSet, f64>, pool: PairSet, weighted: bool| {
        let mut next = BTreeMap::new();
        for (&set, probability) in level {
            let rest = pool.without(set);
            let total = if weighted { weight(rest) } else { rest.len() as f64 };
            for pair in rest.iter() {
                let chance = if weighted { pair.frequency() } else { 1.0 } / total;
                *next.entry(set.with(pair)).or_insert(0.0) += probability * chance;
            }
        }
        next
    };
    let start = BTreeMap::from([(PairSet::EMPTY, 1.0)]);
    let mut level = match split {
        Split::Train | Split::HeldOut => grow(&start, world.pairs_of(split), true),
        Split::Compositional => grow(&start, world.held_out(), false),
    };
    let mut sets = Vec::new();
    for (i, count_weight) in world.count_weights().iter().enumerate() {
        if i > 0 {
            level = grow(&level, world.pairs_of(split), true);
        }
        sets.extend(level.iter().map(|(&set, probability)| (set, probability * count_weight)));
    }
    sets
}

/// Solves the equation above by iterative proportional fitting: each round scales `u_k` by the ratio of its two sides.
fn balance(sets: &[(PairSet, f64)], world: World, split: Split, negatives: Negatives) -> Weights {
    const ROUNDS: usize = 60;
    let mut wanted = [0.0; Pair::COUNT];
    let mut asked = Vec::with_capacity(sets.len());
    for &(shown, probability) in sets {
        let Candidates { present, absent } = candidates(world, split, negatives, shown);
        if !present.is_empty() && !absent.is_empty() {
            absent.iter().for_each(|pair| wanted[pair.index()] += probability / absent.len() as f64);
            asked.push((present, probability));
        }
    }
    let mut weights = [1.0; Pair::COUNT];
    for _ in 0..ROUNDS {
        let mut drawn = [0.0; Pair::COUNT];
        for &(present, probability) in &asked {
            let total: f64 = present.iter().map(|pair| weights[pair.index()]).sum();
            present.iter().for_each(|pair| drawn[pair.index()] += probability * weights[pair.index()] / total);
        }
        for k in (0..Pair::COUNT).filter(|&k| drawn[k] > 0.0) {
            weights[k] *= wanted[k] / drawn[k];
        }
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_is_asked_after_as_often_when_present_as_when_absent() {
        let all = World::ALL.map(|w| [Split::Train, Split::Compositional].map(|s| (w, s)));
        for (world, split) in all.concat() {
            let sets = pair_sets(world, split);
            let total: f64 = sets.iter().map(|(_, probability)| probability).sum();
            assert!((total - 1.0).abs() < 1e-12);
            for &negatives in ways(split) {
                let (mut yes, mut no) = ([0.0; Pair::COUNT], [0.0; Pair::COUNT]);
                for &(shown, probability) in &sets {
                    let Candidates { present, absent } = candidates(world, split, negatives, shown);
                    if present.is_empty() || absent.is_empty() {
                        continue;
                    }
                    let weight = |pair| present_weight(world, split, negatives, pair);
                    let sum: f64 = present.iter().map(weight).sum();
                    present.iter().for_each(|pair| yes[pair.index()] += probability * weight(pair) / sum);
                    absent.iter().for_each(|pair| no[pair.index()] += probability / absent.len() as f64);
                }
                for (k, (yes, no)) in yes.iter().zip(&no).enumerate().filter(|(_, (yes, no))| *yes + *no > 0.0) {
                    let share = yes / (yes + no);
                    assert!((share - 0.5).abs() < 1e-4, "{world:?} {split:?} {negatives:?} pair {k}: yes {share}");
                }
            }
        }
    }
}

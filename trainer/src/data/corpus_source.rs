//! Conversations on disk as a training source.

use super::corpus::{Corpus, Sample};
use super::source::{Conversation, Pair, Source};
use anyhow::{Context, Result};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// A corpus, shuffled anew for every pass over it.
pub struct CorpusSource {
    /// The conversations and their images.
    pub corpus: Corpus,
    /// Drives the order.
    pub seed: u64,
}

impl CorpusSource {
    /// The sample at place `index` of an endless sequence of shuffled passes.
    fn sample(&self, index: u64) -> Result<&Sample> {
        let count = self.corpus.samples.len();
        let (pass, place) = (index / count.max(1) as u64, index as usize % count.max(1));
        let mut order: Vec<usize> = (0..count).collect();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(
            self.seed ^ pass.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        ));
        order
            .get(place)
            .map(|&i| &self.corpus.samples[i])
            .context("the data set is empty")
    }
}

impl Source for CorpusSource {
    fn pair(&self, index: u64) -> Result<Pair> {
        let sample = self.sample(index)?;
        let caption = sample.turns.first().map(|turn| turn.answer.clone()).unwrap_or_default();
        Ok(Pair {
            image: self.corpus.images[sample.image].clone(),
            caption,
            scene: None,
        })
    }

    fn conversation(&self, index: u64, _: f64) -> Result<Conversation> {
        let sample = self.sample(index)?;
        let turns = sample
            .turns
            .iter()
            .map(|turn| (turn.question.clone(), turn.answer.clone()))
            .collect();
        Ok(Conversation {
            image: self.corpus.images[sample.image].clone(),
            place: Some(sample.image),
            turns,
        })
    }
}

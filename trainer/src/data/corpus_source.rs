//! A data set on disk as a training source.

use super::corpus::{Corpus, Sample};
use super::order::{Order, Place, rng};
use super::screen::Screen;
use super::source::{Conversation, Pair, Source};
use anyhow::{Context, Result};
use image::RgbImage;
use rand::RngExt;

/// A corpus, shuffled anew for every pass over it.
pub struct CorpusSource {
    /// The records and their images.
    pub corpus: Corpus,
    seed: u64,
    order: Order,
    /// Conversations come in batches of so many of similar length.
    group: Option<usize>,
}

impl CorpusSource {
    /// In the order that `seed` gives; `group`: conversations in batches of so many that are of similar length.
    pub fn new(corpus: Corpus, seed: u64, group: Option<usize>) -> CorpusSource {
        CorpusSource { order: Order::new(corpus.samples.len(), seed), corpus, seed, group }
    }

    /// As [`Corpus::screen`].
    pub fn screen(&mut self, screen: &Screen<'_>) -> Result<()> {
        self.corpus.screen(screen)?;
        self.order = Order::new(self.corpus.samples.len(), self.seed);
        Ok(())
    }

    /// The sample at a place, or where its images are broken the next good one of the file.
    fn show(&self, place: Option<Place>) -> Result<Shown<'_>> {
        let Place { pass, sample } = place.context("the data set is empty")?;
        let (number, sample, images) = self.corpus.readable(sample)?;
        let turns = self.turns(sample, number, pass);
        Ok(Shown { sample, images, turns })
    }

    /// Questions and answers; one answer is drawn for each pass where there are several.
    fn turns(&self, sample: &Sample, number: usize, pass: u64) -> Vec<(String, String)> {
        let turns = sample.turns.iter();
        let mut turns: Vec<_> = turns.map(|turn| (turn.question.clone(), turn.answer.clone())).collect();
        if let (Some(turn), false) = (turns.first_mut(), sample.captions.is_empty()) {
            let drawn = rng(self.seed ^ pass, number as u64 + 1).random_range(0..sample.captions.len());
            turn.1.clone_from(&sample.captions[drawn]);
        }
        turns
    }
}

/// A sample as it is seen in one pass.
struct Shown<'a> {
    sample: &'a Sample,
    images: Vec<RgbImage>,
    turns: Vec<(String, String)>,
}

impl Source for CorpusSource {
    fn pair(&self, index: u64) -> Result<Pair> {
        let Shown { sample, images, turns } = self.show(self.order.at(index))?;
        Ok(Pair {
            others: sample.captions.clone(),
            image: images.into_iter().next().context("a record without an image")?,
            caption: turns.into_iter().next().map(|(_, answer)| answer).unwrap_or_default(),
            scene: None,
        })
    }

    fn conversation(&self, index: u64, _: f64) -> Result<Conversation> {
        let place = match self.group {
            Some(batch) => self.order.grouped(index, batch, |sample| self.corpus.samples[sample].length()),
            None => self.order.at(index),
        };
        let Shown { sample, images, turns } = self.show(place)?;
        Ok(Conversation { images, places: sample.images.clone(), system: sample.system.clone(), turns })
    }
}

//! Phase 2: instruction tuning. Next-token loss on the answers of conversations about images (Liu et al. 2023).

use super::Phase;
use super::align::{self, Align};
use super::fit::{Losses, Objective};
use crate::data::{Features, Prepare, Source};
use crate::recipe::Phase2;
use anyhow::Result;
use engine::Graph;
use model::{IGNORE, TextBatch, Vlm};

/// What phase 2 trains.
pub struct Instruct<'a> {
    /// The model.
    pub vlm: &'a Vlm,
    /// Where conversations come from.
    pub source: &'a dyn Source,
    /// Tokenizer and image processor.
    pub prepare: &'a Prepare,
    /// Batch size and how turns are laid out.
    pub phase: &'a Phase2,
    /// Phase 1's objective, for the steps that `phase.align_every` gives it.
    pub align: Option<Align<'a>>,
    /// What the image encoder says of the images, kept from before.
    pub features: Option<&'a Features>,
}

/// What is seen of a batch's images.
pub enum Images {
    /// The images themselves, (batch, size, size, 3).
    Pixels(Vec<u8>),
    /// The encoder's output as it lies on disk, (batch, tokens, dim).
    Features(Vec<u8>),
}

/// What one step is taken on.
pub enum Batch {
    /// Images and conversations about them.
    Answers {
        /// What is seen.
        images: Images,
        /// The conversations.
        text: TextBatch,
    },
    /// Pairs of image and caption, as in phase 1.
    Align(align::Batch),
}

impl Objective for Instruct<'_> {
    type Batch = Batch;
    type Together = align::GlobalBatch;

    fn batch(&self, start: u64, size: usize, progress: f64) -> Result<Batch> {
        let (index, shards) = (start / size as u64, self.phase.batch_size / size);
        let step = index / (self.phase.accumulate * shards) as u64;
        let turn = (step + 1).checked_rem(self.phase.align_every as u64);
        if let (Some(align), Some(0)) = (&self.align, turn) {
            let phase = align.phase;
            let size = phase.batch_size / shards;
            // Behind the pairs phase 1 has seen, at the end of its course.
            let seen = (phase.steps * phase.accumulate * phase.batch_size).div_ceil(size) as u64;
            return Ok(Batch::Align(align.batch((seen + index) * size as u64, size, 1.0)?));
        }
        let conversations =
            (start..start + size as u64).map(|i| self.source.conversation(i, progress)).collect::<Result<Vec<_>>>()?;
        let images = match self.features {
            Some(features) => Images::Features(features.bytes(conversations.iter().flat_map(|c| c.places.clone()))?),
            None => Images::Pixels(self.prepare.pixels(conversations.iter().flat_map(|c| &c.images))?),
        };
        Ok(Batch::Answers { images, text: self.prepare.conversations(&conversations, self.phase.layout())? })
    }

    fn weight(&self, batch: &Batch) -> f64 {
        match batch {
            Batch::Answers { text, .. } => text.targets.iter().filter(|target| **target != IGNORE).count() as f64,
            Batch::Align(_) => 1.0,
        }
    }

    fn targets<'b>(&self, batch: &'b Batch) -> &'b [i32] {
        match batch {
            Batch::Answers { text, .. } => &text.targets,
            Batch::Align(_) => &[],
        }
    }

    fn text_tokens(&self, batch: &Batch) -> usize {
        match (batch, &self.align) {
            (Batch::Answers { text, .. }, _) => {
                let image = self.vlm.config.image_token.map(|id| id as i32);
                let words = text.ids.iter().zip(&text.segments);
                words.filter(|(id, segment)| **segment >= 0 && Some(**id) != image).count()
            }
            (Batch::Align(batch), Some(align)) => align.text_tokens(batch),
            (Batch::Align(_), None) => 0,
        }
    }

    fn together<'p>(&self, parts: &[Batch], graph: &dyn Fn(usize) -> Graph<'p>) -> Result<Option<align::GlobalBatch>> {
        let pairs = parts.iter().map_while(|part| match part {
            Batch::Align(batch) => Some(batch),
            Batch::Answers { .. } => None,
        });
        let pairs: Vec<&align::Batch> = pairs.collect();
        match &self.align {
            Some(align) if !pairs.is_empty() => align.global(&pairs, self.phase.accumulate, graph),
            _ => Ok(None),
        }
    }

    fn losses(
        &self,
        graph: &Graph<'_>,
        batch: &Batch,
        together: Option<(&align::GlobalBatch, usize)>,
    ) -> Result<Losses> {
        let (images, text) = match (batch, &self.align) {
            (Batch::Answers { images, text }, _) => (images, text),
            (Batch::Align(batch), Some(align)) => return align.losses(graph, batch, together),
            (Batch::Align(_), None) => anyhow::bail!("a batch of pairs, but no phase 1"),
        };
        let visual = match (images, self.features) {
            (Images::Features(bytes), Some(features)) => {
                let features = graph.input(features.tensor(graph.params(), bytes)?);
                self.vlm.adapt(graph, &features)?
            }
            (Images::Pixels(pixels), _) => {
                let pixels = self.prepare.tensor(graph.params(), pixels)?;
                self.vlm.visual_tokens(graph, &graph.input(pixels))?
            }
            (Images::Features(_), None) => anyhow::bail!("features, but none are kept"),
        };
        let answer = self.vlm.text_loss(graph, &visual, text)?;
        Ok(Losses {
            phase: Phase::Instruct,
            parts: Vec::new(),
            predictions: Some(answer.predictions),
            total: answer.loss,
        })
    }
}

//! Captions compared with those that people wrote: BLEU-1 to BLEU-4 and CIDEr-D.

use super::captioned::{self, Captioned, Per};
use super::{Found, ImageAblation, Item, Kept, SEVERAL, Setup, Source, Task, by_image};
use crate::eval::metrics::caption_tokens::tokens;
use crate::eval::metrics::{Measure, bleu, cider, share};
use anyhow::Result;

/// How a caption is asked for.
pub(super) const PROMPT: &str = "Describe the picture in one sentence.";
/// The longest caption in tokens.
pub(super) const ANSWER: usize = 64;

pub(super) struct Caption {
    items: Vec<Item>,
    /// Each image's captions as words.
    references: Vec<Vec<Vec<String>>>,
}

impl Caption {
    pub(super) fn open(source: &Source) -> Result<Caption> {
        let images = captioned::read(source, Per::Question)?;
        let words = |image: &Captioned| image.captions.iter().map(|caption| tokens(caption)).collect();
        Ok(Caption {
            items: items(&images, source, captioned::no_caption)?,
            references: images.iter().map(words).collect(),
        })
    }
}

/// Images with the question for a caption: the command line's, else the data's own, else the one most frequent in training,
/// else the usual one. `fault` says why an image cannot be asked about.
pub(super) fn items(
    images: &[Captioned],
    source: &Source,
    fault: impl Fn(&Captioned) -> Option<String>,
) -> Result<Vec<Item>> {
    let trained = source.trained.questions.first();
    let prompt = source.prompt(trained.map_or(PROMPT, |(question, _)| question))?;
    let item = |image: &Captioned| {
        let own = image.question.as_ref().filter(|_| source.prompts.is_empty());
        Item {
            image: image.image.clone(),
            more_images: image.more_images.clone(),
            question: own.unwrap_or(&prompt).clone(),
            expected: image.captions.join(SEVERAL),
            system: image.system.clone(),
            fault: fault(image),
            ..Item::default()
        }
    };
    Ok(images.iter().map(item).collect())
}

impl Task for Caption {
    fn items(&self) -> &[Item] {
        &self.items
    }

    fn retain(&mut self, kept: &Kept) {
        kept.select(&mut self.items);
        kept.select(&mut self.references);
    }

    fn measure(&self, setup: &Setup<'_>, ablation: ImageAblation) -> Result<Found> {
        let answers = setup.answers(&self.items, ablation, ANSWER)?;
        let captions: Vec<Vec<String>> = answers.iter().map(|answer| tokens(&answer.text)).collect();
        let clusters = by_image(&self.items);
        let rows = captions.iter().zip(&self.references).map(|(caption, references)| bleu::row(caption, references));
        let rows: Vec<_> = clusters.iter().copied().zip(rows).collect();
        let scores = cider::scores(&captions, &self.references);
        let mut measures = bleu::measures(&rows);
        // Up to 10: no share, so that its interval is a bootstrap's in any case.
        let sums = scores.iter().map(|score| vec![*score, 1.0]);
        measures.push(Measure::new("cider", share, clusters.into_iter().zip(sums)));
        Ok(Found { measures, answers, scores })
    }
}

//! Finding the caption of an image among all captions, and the image of a caption among all images.

use super::captioned::{self, Per};
use super::{Found, ImageAblation, Item, Kept, SEVERAL, Setup, Source, Task};
use crate::eval::generate::Reply;
use crate::eval::metrics::retrieval::{Scored, Ties, distinct, share_among_equal};
use anyhow::Result;

/// The k of R@k.
const KS: [usize; 3] = [1, 5, 10];

pub(super) struct Retrieval {
    items: Vec<Item>,
    /// Each image's captions.
    captions: Vec<Vec<String>>,
    /// For each image, the first that is the very same.
    same: Vec<usize>,
}

impl Retrieval {
    pub(super) fn open(source: &Source) -> Result<Retrieval> {
        let images = captioned::read(source, Per::Image)?;
        let item = |image: &captioned::Captioned| Item {
            image: image.image.clone(),
            question: "which caption?".into(),
            expected: image.captions.join(SEVERAL),
            fault: captioned::no_pair(image),
            ..Item::default()
        };
        Ok(Retrieval {
            items: images.iter().map(item).collect(),
            same: (0..images.len()).collect(),
            captions: images.into_iter().map(|image| image.captions).collect(),
        })
    }
}

impl Task for Retrieval {
    fn items(&self) -> &[Item] {
        &self.items
    }

    fn retain(&mut self, kept: &Kept) {
        kept.select(&mut self.items);
        kept.select(&mut self.captions);
        self.same.clone_from(&kept.same);
    }

    fn texts(&self) -> Vec<&str> {
        self.captions.iter().flatten().map(String::as_str).collect()
    }

    fn measure(&self, setup: &Setup<'_>, ablation: ImageAblation) -> Result<Found> {
        let names: Vec<&str> = self.items.iter().map(|item| item.image.as_str()).collect();
        let comparer = setup.comparer()?;
        let each = self.captions.iter().enumerate();
        let (captions, mut images_of) =
            distinct(each.flat_map(|(i, own)| own.iter().map(move |text| (i, text.as_str()))));
        share_among_equal(&mut images_of, &self.same);
        let scored = Scored {
            scores: comparer.scores(&setup.features(&names, ablation)?, &comparer.texts(&captions)?)?,
            images_of,
            ties: Ties::Even,
        };
        let best = |row: &Vec<f32>| {
            let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]));
            Reply::whole(best.map_or("", |caption| captions[caption]))
        };
        Ok(Found {
            measures: scored.measures(&KS),
            answers: scored.scores.iter().map(best).collect(),
            scores: scored.image_hits(1).into_iter().map(|(_, hit)| hit).collect(),
        })
    }
}

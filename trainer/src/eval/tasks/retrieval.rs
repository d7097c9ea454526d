//! Finding the caption of an image among all captions, and the image of a caption among all images.

use super::captioned;
use super::{Found, Item, Setup, Source, Task, View, score};
use crate::eval::metrics::retrieval::Scored;
use anyhow::Result;

/// The k of R@k.
const KS: [usize; 3] = [1, 5, 10];

pub(super) struct Retrieval {
    items: Vec<Item>,
    captions: Vec<String>,
    /// The item of each caption's image.
    image_of: Vec<usize>,
}

impl Retrieval {
    pub(super) fn open(source: &Source) -> Result<Retrieval> {
        let images = captioned::read(source)?;
        captioned::need_captions(&images)?;
        let item = |image: &captioned::Captioned| Item {
            image: image.image.clone(),
            question: "which caption?".into(),
            expected: image.captions.join(" | "),
        };
        let each = images.iter().enumerate();
        Ok(Retrieval {
            items: images.iter().map(item).collect(),
            image_of: each.flat_map(|(i, image)| vec![i; image.captions.len()]).collect(),
            captions: images.iter().flat_map(|image| image.captions.clone()).collect(),
        })
    }
}

impl Task for Retrieval {
    fn items(&self) -> &[Item] {
        &self.items
    }

    fn measure(&self, setup: &Setup<'_>, view: View) -> Result<Found> {
        let names: Vec<&str> = self.items.iter().map(|item| item.image.as_str()).collect();
        let comparer = setup.comparer()?;
        let scored = Scored {
            scores: comparer.scores(&setup.features(&names, view)?, &comparer.texts(&self.captions)?)?,
            image_of: self.image_of.clone(),
        };
        let best = |row: &Vec<f32>| {
            let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]));
            best.map_or(String::new(), |caption| self.captions[caption].clone())
        };
        Ok(Found {
            measures: scored.measures(&KS),
            answers: scored.scores.iter().map(best).collect(),
            scores: scored.image_ranks().iter().map(|(_, rank)| score(*rank == 0)).collect(),
        })
    }
}

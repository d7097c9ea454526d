//! Hallucination in captions: objects mentioned that neither the annotations nor people's captions have.

use super::caption::{ANSWER, items};
use super::captioned::{self, Captioned, Per};
use super::{Found, ImageAblation, Item, Kept, SEVERAL, Setup, Source, Task, by_image};
use crate::eval::metrics::chair::{Mentions, Objects, measures};
use anyhow::Result;
use std::collections::{BTreeSet, HashMap};

pub(super) struct ChairTask {
    items: Vec<Item>,
    objects: Objects,
    /// What each image shows.
    there: Vec<BTreeSet<String>>,
}

impl ChairTask {
    pub(super) fn open(source: &Source) -> Result<ChairTask> {
        let images = captioned::read(source, Per::Question)?;
        let names = images.iter().flat_map(|image| image.objects.iter().flatten());
        let objects = Objects::coco(names.map(String::as_str));
        // An answer to another question about the image says what it shows, too.
        let mut shown = HashMap::<&str, BTreeSet<String>>::new();
        for image in &images {
            let annotated = image.objects.iter().flatten().map(|name| objects.canonical(name));
            let written = image.captions.iter().flat_map(|caption| objects.mentions(caption));
            let there = annotated.chain(written.map(String::from));
            shown.entry(&image.image).or_default().extend(there);
        }
        let there: Vec<_> = images.iter().map(|image| shown[image.image.as_str()].clone()).collect();
        let unknown = |image: &Captioned| {
            let fault = "no objects in the data: expected COCO's instances, or lines with `objects`; captions may stand in \
                         another file";
            let none = || image.objects.is_none().then(|| fault.into());
            image.fault.clone().or_else(none)
        };
        let mut items = items(&images, source, unknown)?;
        for (item, there) in items.iter_mut().zip(&there) {
            item.expected = there.iter().cloned().collect::<Vec<_>>().join(SEVERAL);
        }
        Ok(ChairTask { items, objects, there })
    }
}

impl Task for ChairTask {
    fn items(&self) -> &[Item] {
        &self.items
    }

    fn retain(&mut self, kept: &Kept) {
        kept.select(&mut self.items);
        kept.select(&mut self.there);
    }

    fn measure(&self, setup: &Setup<'_>, ablation: ImageAblation) -> Result<Found> {
        let answers = setup.answers(&self.items, ablation, ANSWER)?;
        let rows = answers.iter().zip(&self.there).zip(by_image(&self.items));
        let rows =
            rows.map(|((answer, there), image)| Mentions::count(image, &self.objects.mentions(&answer.text), there));
        let rows: Vec<Mentions> = rows.collect();
        Ok(Found {
            measures: measures(&rows),
            scores: rows.iter().map(|caption| super::score(caption.absent == 0)).collect(),
            answers,
        })
    }
}

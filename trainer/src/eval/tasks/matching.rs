//! Do an image and a caption belong together? Lines with a label, as VSR's, or images with captions, of which each is asked
//! about once with its own image and once with another.

use super::captioned::{self, Per};
use super::{Found, ImageAblation, Item, Kept, Setup, Source, Task, by_image, score};
use crate::eval::generate::Reply;
use crate::eval::metrics::yes_no;
use crate::eval::records::{self, Label};
use anyhow::{Result, ensure};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use std::path::Path;

#[derive(Deserialize)]
struct Pair {
    #[serde(alias = "file", alias = "file_name")]
    image: String,
    caption: String,
    label: Label,
}

/// What shows that the lines have labels.
#[derive(Deserialize)]
struct Labelled {
    label: Option<serde_json::Value>,
}

pub(super) struct Matching {
    items: Vec<Item>,
}

impl Matching {
    pub(super) fn open(source: &Source) -> Result<Matching> {
        if let [file] = &source.data[..] {
            let bytes = records::bytes(file)?;
            let labelled = !records::is_document(&bytes, "annotations")
                && records::each::<Labelled>(&bytes, file, None).is_ok_and(|pairs| {
                    let mut read = pairs.iter().flat_map(|(_, pair)| pair);
                    read.any(|pair| pair.label.is_some())
                });
            if labelled {
                return Matching::labelled(&bytes, file, source.limit);
            }
        }
        Matching::drawn(source)
    }

    fn labelled(bytes: &[u8], file: &Path, limit: Option<usize>) -> Result<Matching> {
        let pairs = records::each::<Pair>(bytes, file, limit)?.into_iter();
        let of_pair = |pair: Pair| item(&pair.image, pair.caption, pair.label.0);
        let items = pairs.map(|(_, pair)| pair.map_or_else(Item::unread, of_pair));
        Ok(Matching { items: items.collect() })
    }

    /// The first caption of each image, with its own image and with one drawn from the others.
    fn drawn(source: &Source) -> Result<Matching> {
        let images = captioned::read(source, Per::Image)?.into_iter();
        let (images, without): (Vec<_>, Vec<_>) = images.partition(|image| captioned::no_pair(image).is_none());
        ensure!(images.len() > 1, "matching needs two images or more: one's caption is asked about the other");
        let mut rng = ChaCha8Rng::seed_from_u64(source.seed);
        let mut items = Vec::with_capacity(2 * images.len());
        for (i, image) in images.iter().enumerate() {
            let caption = &image.captions[0];
            let start = rng.random_range(1..images.len());
            let others =
                (0..images.len() - 1).map(|step| &images[(i + 1 + (start + step) % (images.len() - 1)) % images.len()]);
            items.push(item(&image.image, caption.clone(), true));
            // Not one that people describe in the very same words.
            if let Some(other) = others.into_iter().find(|other| !other.captions.contains(caption)) {
                items.push(item(&other.image, caption.clone(), false));
            }
        }
        items.extend(without.iter().map(|image| Item {
            image: image.image.clone(),
            fault: captioned::no_pair(image),
            ..Item::default()
        }));
        Ok(Matching { items })
    }
}

fn item(image: &str, caption: String, belongs: bool) -> Item {
    Item {
        image: image.into(),
        question: caption,
        expected: if belongs { "yes" } else { "no" }.into(),
        ..Item::default()
    }
}

impl Task for Matching {
    fn items(&self) -> &[Item] {
        &self.items
    }

    fn retain(&mut self, kept: &Kept) {
        kept.select(&mut self.items);
    }

    fn texts(&self) -> Vec<&str> {
        self.items.iter().map(|item| item.question.as_str()).collect()
    }

    fn measure(&self, setup: &Setup<'_>, ablation: ImageAblation) -> Result<Found> {
        let pairs: Vec<(&str, &str)> = self.items.iter().map(|i| (i.image.as_str(), i.question.as_str())).collect();
        let found = setup.matches(&pairs, ablation)?;
        let said = |yes: &bool| Reply::whole(if *yes { "yes" } else { "no" });
        let answers: Vec<Reply> = found.iter().map(said).collect();
        let clusters = by_image(&self.items);
        let rows = (0..answers.len()).map(|i| (clusters[i], self.items[i].expected == "yes", answers[i].text.as_str()));
        let right = self.items.iter().zip(&answers).map(|(item, answer)| score(item.expected == answer.text));
        Ok(Found { measures: yes_no::measures("", &rows.collect::<Vec<_>>()), scores: right.collect(), answers })
    }
}

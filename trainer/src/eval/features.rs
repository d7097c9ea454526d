//! Features of a benchmark's images, a batch at a time.

use super::contrastive::{Comparer, Features};
use super::generate::distinct;
use super::tasks::{ImageAblation, Setup};
use crate::interrupt;
use anyhow::{Context, Result};

impl Setup<'_> {
    /// The model as one that compares.
    pub fn comparer(&self) -> Result<Comparer<'_>> {
        self.subject.comparer().context("this model does not compare images with texts")
    }

    /// The features of images in a view.
    pub fn features(&self, names: &[&str], ablation: ImageAblation) -> Result<Features> {
        let comparer = self.comparer()?;
        let names = shown(names, ablation);
        let (unique, places) = distinct(&names);
        let mut features = Features::default();
        for batch in unique.chunks(self.batch_size) {
            interrupt::heed()?;
            let (images, _) = self.images(batch, ablation)?;
            comparer.add_images(&images.concat(), &mut features)?;
            (self.progress)(features.len(), unique.len());
        }
        Ok(features.select(&places))
    }

    /// For each image and text, whether the matching head takes them for a pair.
    ///
    /// # Errors
    /// When the model has none, or an image is damaged.
    pub fn matches(&self, pairs: &[(&str, &str)], ablation: ImageAblation) -> Result<Vec<bool>> {
        let comparer = self.comparer()?;
        let names = shown(&pairs.iter().map(|(image, _)| *image).collect::<Vec<_>>(), ablation);
        let mut found = Vec::with_capacity(pairs.len());
        for (batch, names) in pairs.chunks(self.batch_size).zip(names.chunks(self.batch_size)) {
            interrupt::heed()?;
            let (images, places) = self.images(names, ablation)?;
            let pairs = batch.iter().zip(places).map(|((_, text), place)| (images[place].as_slice(), *text));
            found.extend(comparer.matches(&pairs.collect::<Vec<_>>())?);
            (self.progress)(found.len(), names.len());
        }
        Ok(found)
    }
}

/// The names of the images that an ablation shows in place of some: blank ones have none, and without their own, items get the
/// next other image round the list.
fn shown<'n>(names: &[&'n str], ablation: ImageAblation) -> Vec<&'n str> {
    match ablation {
        ImageAblation::None => names.to_vec(),
        ImageAblation::Blank => vec![""; names.len()],
        ImageAblation::Removed => {
            let (unique, places) = distinct(names);
            places.into_iter().map(|place| unique[(place + 1) % unique.len()]).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_image_is_shown_to_every_item() {
        let names = ["a", "a", "b", "c", "a"];
        assert_eq!(shown(&names, ImageAblation::Removed), ["b", "b", "c", "a", "b"]);
        assert_eq!(shown(&names, ImageAblation::Blank), [""; 5]);
        assert_eq!(shown(&["a"], ImageAblation::Removed), ["a"], "there is no other");
    }
}

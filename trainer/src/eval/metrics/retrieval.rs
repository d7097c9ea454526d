//! Recall at k: is what belongs together among the k best?

use super::Measure;
use std::collections::{BTreeSet, HashMap};

/// Scores of images (rows) with texts (columns), and the images that each text is true of.
pub struct Scored {
    /// One row per image.
    pub scores: Vec<Vec<f32>>,
    /// The rows of each text's images: at least one. Equal texts are one text.
    pub images_of: Vec<Vec<usize>>,
    /// How others that score as high as the best of one's own count.
    pub ties: Ties,
}

/// How others with the same score count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ties {
    /// As in a random order of all that score the same: then a model that cannot tell them apart reaches what guessing does.
    Even,
    /// As if they scored higher.
    Against,
}

/// The chance that one of one's own candidates, by their places, is among the first `k` by score.
pub fn hit(scores: &[f32], own: impl Fn(usize) -> bool, k: usize, ties: Ties) -> f64 {
    let places = || scores.iter().enumerate();
    let best = places().filter(|(place, _)| own(*place)).map(|(_, score)| *score).reduce(f32::max);
    // What is no number is not found.
    let Some(best) = best.filter(|best| !best.is_nan()) else {
        return 0.0;
    };
    let (mut above, mut tied, mut alike) = (0, 0, 0);
    for (place, &score) in places() {
        match own(place) {
            true => alike += usize::from(score == best),
            false => {
                above += usize::from(score > best);
                tied += usize::from(score == best);
            }
        }
    }
    match ties {
        _ if above >= k => 0.0,
        Ties::Even => found_by_chance(alike, alike + tied, k - above),
        Ties::Against => f64::from(u8::from(above + tied < k)),
    }
}

impl Scored {
    /// For each image with a text, the chance that one of its own is among the first `k`.
    pub fn image_hits(&self, k: usize) -> Vec<(usize, f64)> {
        let of_image = |(image, row): (usize, &Vec<f32>)| {
            let own = |text: usize| self.images_of[text].contains(&image);
            (image, hit(row, own, k, self.ties))
        };
        let own = self.texts_of();
        let rows = self.scores.iter().enumerate().filter(|(image, _)| own[*image] > 0);
        rows.map(of_image).collect()
    }

    /// For each text, its first image and the chance that one of its images is among the first `k`.
    pub fn text_hits(&self, k: usize) -> Vec<(usize, f64)> {
        let of_text = |(text, images): (usize, &Vec<usize>)| {
            let column: Vec<f32> = self.scores.iter().map(|row| row[text]).collect();
            (images[0], hit(&column, |image| images.contains(&image), k, self.ties))
        };
        self.images_of.iter().enumerate().map(of_text).collect()
    }

    /// How many texts are true of each image.
    fn texts_of(&self) -> Vec<usize> {
        let mut own = vec![0; self.scores.len()];
        self.images_of.iter().flatten().for_each(|&image| own[image] += 1);
        own
    }

    /// R@k both ways for each of `ks`; guessing is a random order.
    pub fn measures(&self, ks: &[usize]) -> Vec<Measure> {
        let mean = |chances: &mut dyn Iterator<Item = f64>| {
            let (sum, count) = chances.fold((0.0, 0usize), |(sum, count), chance| (sum + chance, count + 1));
            sum / count.max(1) as f64
        };
        let own: Vec<usize> = self.texts_of().into_iter().filter(|own| *own > 0).collect();
        let (images, texts) = (self.scores.len(), self.images_of.len());
        let both = |&k: &usize| {
            let of_images = mean(&mut own.iter().map(|&own| found_by_chance(own, texts, k)));
            let of_texts = mean(&mut self.images_of.iter().map(|own| found_by_chance(own.len(), images, k)));
            [
                Measure::mean(format!("image_to_text.r{k}"), self.image_hits(k)).guessing(of_images),
                Measure::mean(format!("text_to_image.r{k}"), self.text_hits(k)).guessing(of_texts),
            ]
        };
        let mut measures: Vec<Measure> = ks.iter().flat_map(both).collect();
        measures.sort_by_key(|measure| measure.name.starts_with("text"));
        measures
    }
}

/// Texts as columns, each once, and the items that say it: `texts` are each item's own.
pub fn distinct<'t>(texts: impl IntoIterator<Item = (usize, &'t str)>) -> (Vec<&'t str>, Vec<Vec<usize>>) {
    let (mut columns, mut numbers) = (Vec::new(), HashMap::new());
    let mut images_of: Vec<Vec<usize>> = Vec::new();
    for (item, text) in texts {
        let text = text.trim();
        let number = *numbers.entry(text).or_insert_with(|| {
            columns.push(text);
            images_of.push(Vec::new());
            columns.len() - 1
        });
        if !images_of[number].contains(&item) {
            images_of[number].push(item);
        }
    }
    (columns, images_of)
}

/// What is true of an image is true of all that are the same: `same` has one number for all of these.
pub fn share_among_equal(images_of: &mut [Vec<usize>], same: &[usize]) {
    for images in images_of {
        let groups: BTreeSet<usize> = images.iter().map(|&image| same[image]).collect();
        *images = (0..same.len()).filter(|&image| groups.contains(&same[image])).collect();
    }
}

/// The chance that one of `own` of `all` is among the first `k` of a random order: 1 − C(all − own, k) / C(all, k).
fn found_by_chance(own: usize, all: usize, k: usize) -> f64 {
    let missed = |i: usize| all.saturating_sub(own + i) as f64 / (all - i) as f64;
    1.0 - (0..k.min(all)).map(missed).product::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(scored: &Scored) -> Vec<(String, f64, f64)> {
        let measures = scored.measures(&[1, 2, 5]).into_iter();
        measures.map(|m| (m.name.clone(), m.value(), m.guess.unwrap())).collect()
    }

    #[test]
    fn recall_counts_the_rank_of_what_belongs_together() {
        // Row 0 ranks itself first, row 1 second, row 2 third.
        let mut scored = Scored {
            scores: vec![vec![9.0, 1.0, 2.0], vec![5.0, 4.0, 3.0], vec![6.0, 7.0, 5.0]],
            images_of: vec![vec![0], vec![1], vec![2]],
            ties: Ties::Even,
        };
        let third = 1.0 / 3.0;
        let found = figures(&scored);
        assert_eq!(found[0], ("image_to_text.r1".into(), third, found[0].2));
        assert!((found[0].2 - third).abs() < 1e-12);
        assert_eq!((found[1].1, found[2].1, found[2].2), (2.0 * third, 1.0, 1.0));
        // Columns: 9 is the best of its own, 4 the second, 5 the best.
        assert_eq!((found[3].1, found[3].2), (2.0 * third, found[0].2));
        scored.scores = vec![vec![1.0; 3]; 3];
        for (name, value, guess) in figures(&scored) {
            assert!((value - guess).abs() < 1e-12, "{name}: equal scores find what guessing does");
        }
        scored.ties = Ties::Against;
        assert!(figures(&scored).iter().take(2).all(|(_, value, _)| *value == 0.0), "or nothing");
        scored.scores = vec![vec![f32::NAN; 3]; 3];
        assert!(figures(&scored).iter().all(|(_, value, _)| *value == 0.0), "what is no number finds nothing");
    }

    #[test]
    fn equal_captions_are_one_and_so_are_equal_images() {
        let texts = [(0, "a dog"), (1, "a cat"), (2, " a dog "), (2, "a dog"), (3, "a red dog")];
        let (columns, mut images_of) = distinct(texts);
        assert_eq!(columns, ["a dog", "a cat", "a red dog"]);
        assert_eq!(images_of, [vec![0, 2], vec![1], vec![3]]);
        share_among_equal(&mut images_of, &[0, 1, 2, 1]);
        assert_eq!(images_of, [vec![0, 2], vec![1, 3], vec![1, 3]]);
        let dog = vec![9.0, 1.0, 2.0];
        let cat = vec![1.0, 8.0, 8.0];
        let scored = Scored { scores: vec![dog.clone(), cat.clone(), dog, cat], images_of, ties: Ties::Even };
        let found = figures(&scored);
        assert!(found.iter().all(|(_, value, _)| *value == 1.0), "{found:?}");
        // One of three captions belongs to the dogs, two to the cats.
        assert!((found[0].2 - 0.5).abs() < 1e-12 && (found[3].2 - 0.5).abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn the_best_of_several_captions_counts() {
        let scored = Scored {
            scores: vec![vec![0.0, 3.0, 2.0, 1.0], vec![5.0, 4.0, 1.0, 2.0]],
            images_of: vec![vec![0], vec![0], vec![1], vec![1]],
            ties: Ties::Even,
        };
        assert_eq!(scored.image_hits(1), [(0, 1.0), (1, 0.0)]);
        assert_eq!(scored.image_hits(3), [(0, 1.0), (1, 1.0)]);
        assert_eq!(scored.text_hits(1), [(0, 0.0), (0, 0.0), (1, 0.0), (1, 1.0)]);
        // Two of four texts: the first is one's own with 1/2, one of two with 5/6.
        assert!((found_by_chance(2, 4, 1) - 0.5).abs() < 1e-12);
        assert!((found_by_chance(2, 4, 2) - 5.0 / 6.0).abs() < 1e-12);
        assert_eq!(found_by_chance(2, 4, 9), 1.0);
    }
}

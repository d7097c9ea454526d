//! Recall at k: is what belongs together among the k best?

use super::Measure;

/// Scores of images (rows) with texts (columns), and the image that each text belongs to.
pub struct Scored {
    /// One row per image.
    pub scores: Vec<Vec<f32>>,
    /// The row of each text's image.
    pub image_of: Vec<usize>,
}

impl Scored {
    /// For each image, how many texts of others score as high as the best of its own: ties count against it. Images
    /// without a text are left out.
    pub fn image_ranks(&self) -> Vec<(usize, usize)> {
        let rank = |(image, row): (usize, &Vec<f32>)| {
            let own = row.iter().zip(&self.image_of).filter(|(_, owner)| **owner == image);
            let best = own.map(|(score, _)| *score).reduce(f32::max)?;
            let others = row.iter().zip(&self.image_of).filter(|(_, owner)| **owner != image);
            Some((image, others.filter(|(score, _)| **score >= best).count()))
        };
        self.scores.iter().enumerate().filter_map(rank).collect()
    }

    /// For each text, its image and how many others score as high: ties count against it.
    pub fn text_ranks(&self) -> Vec<(usize, usize)> {
        let rank = |(text, &image): (usize, &usize)| {
            let own = self.scores[image][text];
            let others = self.scores.iter().enumerate().filter(|(other, _)| *other != image);
            (image, others.filter(|(_, row)| row[text] >= own).count())
        };
        self.image_of.iter().enumerate().map(rank).collect()
    }

    /// R@k both ways for each of `ks`; guessing is a random order.
    pub fn measures(&self, ks: &[usize]) -> Vec<Measure> {
        let (images, texts) = (self.image_ranks(), self.text_ranks());
        let mut own = vec![0; self.scores.len()];
        self.image_of.iter().for_each(|&image| own[image] += 1);
        let at = |name: &str, ranks: &[(usize, usize)], k: usize| {
            let hit = |&(image, rank): &(usize, usize)| (image, f64::from(u8::from(rank < k)));
            Measure::mean(format!("{name}.r{k}"), ranks.iter().map(hit))
        };
        let chance = |k: usize| {
            let all = images
                .iter()
                .map(|&(image, _)| found_by_chance(own[image], self.image_of.len(), k));
            all.sum::<f64>() / images.len().max(1) as f64
        };
        let both = |&k: &usize| {
            let among = (k as f64 / self.scores.len().max(1) as f64).min(1.0);
            [
                at("image_to_text", &images, k).guessing(chance(k)),
                at("text_to_image", &texts, k).guessing(among),
            ]
        };
        let mut measures: Vec<Measure> = ks.iter().flat_map(both).collect();
        measures.sort_by_key(|measure| measure.name.starts_with("text"));
        measures
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
        measures
            .map(|m| (m.name.clone(), m.value(), m.guess.unwrap()))
            .collect()
    }

    #[test]
    fn recall_counts_the_rank_of_what_belongs_together() {
        // Row 0 ranks itself first, row 1 second, row 2 third.
        let mut scored = Scored {
            scores: vec![vec![9.0, 1.0, 2.0], vec![5.0, 4.0, 3.0], vec![6.0, 7.0, 5.0]],
            image_of: vec![0, 1, 2],
        };
        let third = 1.0 / 3.0;
        let found = figures(&scored);
        assert_eq!(found[0], ("image_to_text.r1".into(), third, found[0].2));
        assert!((found[0].2 - third).abs() < 1e-12);
        assert_eq!((found[1].1, found[2].1, found[2].2), (2.0 * third, 1.0, 1.0));
        // Columns: 9 is the best of its own, 4 the second, 5 the best.
        assert_eq!((found[3].1, found[3].2), (2.0 * third, third));
        scored.scores = vec![vec![1.0; 3]; 3];
        assert!(
            figures(&scored).iter().take(2).all(|(_, value, _)| *value == 0.0),
            "equal scores find nothing"
        );
    }

    #[test]
    fn the_best_of_several_captions_counts() {
        let scored = Scored {
            scores: vec![vec![0.0, 3.0, 2.0, 1.0], vec![5.0, 4.0, 1.0, 2.0]],
            image_of: vec![0, 0, 1, 1],
        };
        assert_eq!(scored.image_ranks(), [(0, 0), (1, 2)]);
        assert_eq!(scored.text_ranks(), [(0, 1), (0, 1), (1, 1), (1, 0)]);
        // Two of four texts: the first is one's own with 1/2, one of two with 5/6.
        assert!((found_by_chance(2, 4, 1) - 0.5).abs() < 1e-12);
        assert!((found_by_chance(2, 4, 2) - 5.0 / 6.0).abs() < 1e-12);
        assert_eq!(found_by_chance(2, 4, 9), 1.0);
    }
}

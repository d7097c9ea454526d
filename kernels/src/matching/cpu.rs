//! Pairs for image–text matching on the CPU.

use crate::Element;
use crate::cpu::simd::Real;
use crate::matching::{Lists, Matching};

pub(crate) fn draw_pairs<T: Element>(
    p: &Matching,
    scores: &[T],
    log_scale: T::Acc,
    truth: &[u8],
    uniform: &[f64],
    mut lists: Lists,
) {
    let (images, texts) = (lists.images.slice_mut(), lists.texts.slice_mut());
    let labels: &mut [i32] = lists.labels.slice_mut();
    let (n, queries) = (p.n, p.queries);
    let scale = log_scale.f64().exp();
    let score = |image: usize, text: usize| {
        let each = (0..queries).map(|q| scores[(image * queries + q) * n + text].widen().f64());
        scale * each.fold(f64::MIN, f64::max) * p.hardness
    };
    let wrong = |image: usize, text: usize| truth[image * n + text] == 0;
    let mut put = |place: usize, image: usize, text: usize| {
        (images[place], texts[place]) = (image as i32, text as i32);
        labels[place] = i32::from(!wrong(image, text));
    };
    for own in 0..n {
        let text = draw(n, own, uniform[own], |j| wrong(own, j).then(|| score(own, j)));
        let image = draw(n, own, uniform[n + own], |i| wrong(i, own).then(|| score(i, own)));
        put(own, own, own);
        put(n + own, own, text);
        put(2 * n + own, image, own);
    }
}

/// One of `0..n` other than `own` that has a score, by chances ∝ exp(score); `own` where there is none.
fn draw(n: usize, own: usize, uniform: f64, score: impl Fn(usize) -> Option<f64>) -> usize {
    let candidates: Vec<(usize, f64)> =
        (0..n).filter(|&other| other != own).filter_map(|other| Some((other, score(other)?))).collect();
    let largest = candidates.iter().map(|(_, score)| *score).fold(f64::NEG_INFINITY, f64::max);
    let weight = |score: f64| (score - largest).exp();
    let mut left = uniform * candidates.iter().map(|(_, score)| weight(*score)).sum::<f64>();
    for (other, score) in &candidates {
        left -= weight(*score);
        if left <= 0.0 {
            return *other;
        }
    }
    candidates.last().map_or(own, |(other, _)| *other)
}

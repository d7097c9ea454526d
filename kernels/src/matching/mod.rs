//! Pairs for image–text matching: true ones, and wrong ones drawn in proportion to the contrastive similarity (Li et al.
//! 2021, "ALBEF").

pub(crate) mod cpu;
pub(crate) mod gpu;

use crate::dispatch::Call;
use crate::view::on_device;
use crate::{DType, Result, View, ViewMut};

/// The sizes of a batch, and how hard its wrong pairs are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Matching {
    /// Images, and texts.
    pub n: usize,
    /// Vectors an image has; its score is that of the best.
    pub queries: usize,
    /// Factor on the scores by which wrong pairs are drawn; 0 draws evenly.
    pub hardness: f64,
}

/// What [`draw_pairs`] writes, each (3n) of I32.
#[derive(Debug)]
pub struct Lists<'a> {
    /// Numbers of images.
    pub images: ViewMut<'a>,
    /// Numbers of texts.
    pub texts: ViewMut<'a>,
    /// 1 for true pairs.
    pub labels: ViewMut<'a>,
}

/// Three lists of `n` pairs, one after another: image i with text i; image i with a wrong text; a wrong image with text i.
/// A wrong one is drawn by `exp(hardness · s_ij)` among those that are not true, `s_ij = e^log_scale · max_q scores[i, q, j]`;
/// where all are true the own one comes back.
///
/// `scores` is `(n·queries, n)` of T, `log_scale` (1) of A, `truth` (n, n) of U8: whether text j is true of image i. `uniform`
/// (2n) of F64, numbers in [0, 1), draws the wrong texts and then the wrong images.
pub fn draw_pairs(p: &Matching, scores: View, log_scale: View, truth: View, uniform: View, lists: Lists) -> Result<()> {
    let call = Call::new("draw_pairs", "scores", &scores)?;
    let Matching { n, queries, .. } = *p;
    call.same("scores", &scores, call.elements(&[n, queries, n])?)?;
    call.accumulator("log_scale", &log_scale, 1)?;
    call.typed("truth", &truth, DType::U8, n * n)?;
    call.typed("uniform", &uniform, DType::F64, 2 * n)?;
    for (what, list) in [("images", &lists.images), ("texts", &lists.texts), ("labels", &lists.labels)] {
        call.typed(what, list, DType::I32, 3 * n)?;
    }
    if queries == 0 {
        return Err(call.refuse("an image needs at least one query".to_owned()));
    }
    on_device!("draw_pairs", scores, T => {
        cpu::draw_pairs::<T>(p, scores.slice(), log_scale.slice()[0], truth.slice(), uniform.slice(), lists)
    }, gpu => gpu::draw_pairs(p, scores, log_scale, truth, uniform, lists))
}

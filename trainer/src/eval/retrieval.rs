//! Finding the caption of an image and the image of a caption, and telling true pairs from false ones.

use crate::data::{Pair, Prepare};
use crate::eval::Figures;
use crate::phases::align::similarity;
use anyhow::Result;
use engine::{DType, Graph, Params, Tensor, Var};
use image::RgbImage;
use model::{QFormer, Texts, Vlm};

/// Pairs computed at once.
const BATCH: usize = 64;

/// R@1 and R@5 both ways among `pairs`, from the contrastive features. A caption that is true of several images counts
/// for its own alone.
pub fn retrieval(vlm: &Vlm, qformer: &QFormer, params: &Params, prepare: &Prepare, pairs: &[Pair]) -> Result<Figures> {
    let n = pairs.len();
    let (mut images, mut texts) = (Vec::new(), Vec::new());
    for batch in pairs.chunks(BATCH) {
        let graph = Graph::inference(params);
        let tokens = encode(vlm, &graph, prepare, batch.iter().map(|p| &p.image))?;
        let captions: Vec<&str> = batch.iter().map(|p| p.caption.as_str()).collect();
        images.extend(qformer.itc_features(&graph, &tokens)?.tensor().to_f64()?);
        let captions = Texts::for_matching(&prepare.tokenizer, &captions)?;
        texts.extend(qformer.text_features(&graph, &captions)?.tensor().to_f64()?);
    }
    let (queries, dim) = (images.len() / texts.len(), texts.len() / n);
    let graph = Graph::inference(params);
    let variable = |values: &[f64], shape: &[usize]| -> Result<Var> {
        Ok(Var::constant(
            Tensor::from_slice(params.device(), values, shape)?.cast(DType::F32)?,
        ))
    };
    let (images, texts) = (variable(&images, &[n, queries, dim])?, variable(&texts, &[n, dim])?);
    let scores = similarity(qformer, &graph, &images, &texts)?;
    let mut figures = Figures::new();
    for k in [1, 5] {
        figures.insert(
            format!("retrieval.image_to_text.r{k}"),
            recall(n, k, |i, j| scores[i * n + j]),
        );
        figures.insert(
            format!("retrieval.text_to_image.r{k}"),
            recall(n, k, |i, j| scores[j * n + i]),
        );
    }
    Ok(figures)
}

/// The share of rows whose own column is among the `k` best; ties count against it.
fn recall(n: usize, k: usize, score: impl Fn(usize, usize) -> f64) -> f64 {
    let better = |i: usize| (0..n).filter(|&j| j != i && score(i, j) >= score(i, i)).count();
    (0..n).filter(|&i| better(i) < k).count() as f64 / n.max(1) as f64
}

/// For each image and caption, whether the matching head takes them for a pair.
pub fn matches(
    vlm: &Vlm,
    qformer: &QFormer,
    params: &Params,
    prepare: &Prepare,
    pairs: &[(&RgbImage, String)],
) -> Result<Vec<bool>> {
    let mut found = Vec::with_capacity(pairs.len());
    for batch in pairs.chunks(BATCH) {
        let graph = Graph::inference(params);
        let tokens = encode(vlm, &graph, prepare, batch.iter().map(|(image, _)| *image))?;
        let captions: Vec<&str> = batch.iter().map(|(_, caption)| caption.as_str()).collect();
        let captions = Texts::for_matching(&prepare.tokenizer, &captions)?;
        let logits = qformer.itm_logits(&graph, &tokens, &captions)?.tensor().to_f64()?;
        found.extend(logits.chunks(2).map(|pair| pair[1] > pair[0]));
    }
    Ok(found)
}

fn encode<'i>(
    vlm: &Vlm,
    graph: &Graph<'_>,
    prepare: &Prepare,
    images: impl Iterator<Item = &'i RgbImage>,
) -> Result<Var> {
    let pixels = prepare.tensor(graph.params(), &prepare.pixels(images)?)?;
    Ok(vlm.vision.forward(graph, &graph.input(pixels))?)
}

#[cfg(test)]
mod tests {
    use super::recall;

    #[test]
    fn recall_counts_the_rank_of_the_own_column() {
        // Row 0 ranks itself first, row 1 second, row 2 third.
        let scores = [[9.0, 1.0, 2.0], [5.0, 4.0, 3.0], [6.0, 7.0, 5.0]];
        let at = |i: usize, j: usize| scores[i][j];
        assert_eq!(recall(3, 1, at), 1.0 / 3.0);
        assert_eq!(recall(3, 2, at), 2.0 / 3.0);
        assert_eq!(recall(3, 5, at), 1.0);
        assert_eq!(recall(3, 1, |_, _| 1.0), 0.0, "equal scores find nothing");
    }
}

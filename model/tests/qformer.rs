//! The Q-Former: what sees what, and the gradients of its three losses.

mod common;

use common::*;
use engine::{DType, Device, Graph, Pairs, Params, Tensor, Var, ops};
use model::{QFormer, Texts, Vlm};

fn model(dtype: DType) -> (Vlm, Params, QFormer) {
    let (vlm, params) = build(&tiny(), dtype);
    let qformer = vlm.qformer.clone().unwrap();
    (vlm, params, qformer)
}

fn image(g: &Graph<'_>, vlm: &Vlm, seed: u64) -> Var {
    let pixels = pixels(g.params(), 2, 8, seed);
    vlm.vision.forward(g, &g.input(pixels)).unwrap()
}

fn texts(last: u32) -> Texts {
    Texts::pad(&[vec![6, 8, 9, 10, last], vec![6, 9, last]], 0)
}

fn values(x: &Var) -> Vec<f64> {
    x.tensor().to_f64().unwrap()
}

#[test]
fn shapes() {
    let (vlm, params, q) = model(DType::F32);
    let g = Graph::inference(&params);
    let image = image(&g, &vlm, 0);
    let t = texts(2);
    assert_eq!(q.queries(&g, &image).unwrap().shape()[..], [2, 2, 8]);
    assert_eq!(q.text(&g, &t).unwrap().shape()[..], [2, 5, 8]);
    let (queries, text) = q.both(&g, &image, &t).unwrap();
    assert_eq!((&queries.shape()[..], &text.shape()[..]), (&[2, 2, 8][..], &[2, 5, 8][..]));
    assert_eq!(q.caption(&g, &image, &t).unwrap().shape()[..], [2, 5, 8]);
    assert_eq!(q.itm_logits(&g, &image, &t).unwrap().shape()[..], [2, 2]);
    let features = values(&q.itc_features(&g, &image).unwrap());
    assert_eq!(features.len(), 2 * 2 * 5);
    for row in features.chunks(5).chain(values(&q.text_features(&g, &t).unwrap()).chunks(5)) {
        let norm: f64 = row.iter().map(|x| x * x).sum();
        assert!((norm - 1.0).abs() < 1e-5, "{norm}");
    }
    let too_long = Texts::pad(&[vec![6; 7]], 0);
    assert!(q.text(&g, &too_long).is_err());
}

#[test]
fn queries_see_text_only_in_matching() {
    let (vlm, params, q) = model(DType::F64);
    let g = Graph::inference(&params);
    let image = image(&g, &vlm, 0);
    let alone = values(&q.queries(&g, &image).unwrap());
    let (first, _) = q.both(&g, &image, &texts(2)).unwrap();
    let (second, _) = q.both(&g, &image, &texts(3)).unwrap();
    assert_ne!(values(&first), values(&second));
    assert_ne!(values(&first), alone);
}

#[test]
fn captions_see_queries_and_the_past() {
    let (vlm, params, q) = model(DType::F64);
    let g = Graph::inference(&params);
    let (one, other) = (image(&g, &vlm, 0), image(&g, &vlm, 1));
    let caption = |image: &Var, last| values(&q.caption(&g, image, &texts(last)).unwrap());
    let (a, b) = (caption(&one, 2), caption(&one, 3));
    // Text 0 differs at token 4, text 1 at token 2: what comes before is the same, what comes there is not.
    close(&a[..4 * 8], &b[..4 * 8], 1e-12);
    assert!((a[4 * 8] - b[4 * 8]).abs() > 1e-9);
    close(&a[40..40 + 2 * 8], &b[40..40 + 2 * 8], 1e-12);
    assert!((a[0] - caption(&other, 2)[0]).abs() > 1e-9);
}

#[test]
fn queries_do_not_see_the_text_they_help_to_say() {
    // Through two blocks, a caption's first token would feel a later token that reached the queries.
    let (vlm, params, q) = model(DType::F64);
    let g = Graph::inference(&params);
    let image = image(&g, &vlm, 0);
    let first = |rest: [u32; 2]| {
        let t = Texts::pad(&[vec![7, rest[0], rest[1]], vec![7, 8, 9]], 0);
        values(&q.caption(&g, &image, &t).unwrap())[..8].to_vec()
    };
    close(&first([8, 9]), &first([10, 3]), 1e-12);
}

#[test]
fn text_alone_sees_all_of_itself_and_no_padding() {
    let (_, params, q) = model(DType::F64);
    let g = Graph::inference(&params);
    let first = |rows: &[Vec<u32>]| values(&q.text(&g, &Texts::pad(rows, 0)).unwrap())[..8].to_vec();
    let alone = first(&[vec![6, 8, 9]]);
    close(&first(&[vec![6, 8, 9], vec![6, 8, 9, 10, 3]]), &alone, 1e-12);
    assert!((first(&[vec![6, 8, 10]])[0] - alone[0]).abs() > 1e-9);
}

#[test]
fn matching_ignores_padding() {
    let (vlm, params, q) = model(DType::F64);
    let g = Graph::inference(&params);
    let image = image(&g, &vlm, 0);
    let logits = |pad| {
        let t = Texts::pad(&[vec![6, 8, 9, 10, 3], vec![6, 9]], pad);
        values(&q.itm_logits(&g, &image, &t).unwrap())
    };
    assert_eq!(logits(0), logits(5));
}

#[test]
fn captions_are_asked_for_each_next_word() {
    let targets = texts(2).next_tokens();
    assert_eq!(targets, [8, 9, 10, 2, -100, 9, 2, -100, -100, -100]);
}

#[test]
fn gradients_of_all_three_losses_agree_with_differences() {
    let (vlm, mut params, q) = model(DType::F64);
    let pixels = pixels(&params, 2, 8, 3);
    check_gradients(&mut params, |g| {
        let image = vlm.vision.forward(g, &g.input(pixels.clone()))?;
        let (matching, words) = (texts(3), texts(2));
        let itc = ops::clip_loss(&q.itc_features(g, &image)?, &q.text_features(g, &matching)?, &q.logit_scale(g)?)?;
        let list = |numbers: [i32; 2]| Tensor::from_slice(&Device::cpu(), &numbers, [2]);
        let pairs = Pairs { images: list([0, 1])?, texts: list([1, 1])?, labels: list([0, 1])? };
        let itm = q.itm_loss(g, &image, &matching, &pairs)?.loss;
        let itg = q.caption_loss(g, &image, &words, &words.next_tokens())?.loss;
        Ok(ops::add(&ops::add(&itc, &itm)?, &itg)?)
    });
}

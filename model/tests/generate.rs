//! Generation: alone, in batches, and against the model without a cache.

mod common;

use common::*;
use engine::{DType, Graph, Params, Tensor, Var, ops};
use model::{Generation, Generator, ImageAttention, ImagePositions, Kept, Prompt, Request, TextBatch, Vlm};
use std::ops::ControlFlow;

fn settings(max_new: usize, stop: &[u32]) -> Generation {
    Generation { max_new, stop: stop.to_vec(), ..Generation::default() }
}

/// Greedy decoding that computes the whole sequence again for every token.
fn plain(vlm: &Vlm, params: &Params, image: &Tensor, prompt: &[u32], max_new: usize, stop: &[u32]) -> Vec<u32> {
    let g = Graph::inference(params);
    let visual = vlm.visual_tokens(&g, &g.input(image.clone())).unwrap();
    plain_behind(vlm, params, &visual, prompt, max_new, stop)
}

/// The same behind image slots (1, slots, dim).
fn plain_behind(vlm: &Vlm, params: &Params, visual: &Var, prompt: &[u32], max_new: usize, stop: &[u32]) -> Vec<u32> {
    let mut ids = prompt.to_vec();
    while ids.len() < prompt.len() + max_new {
        let g = Graph::inference(params);
        let text = TextBatch::pack(&[vec![turn(&ids, 0)]], 0, 1).unwrap();
        let out = vlm.text_states(&g, visual, &text).unwrap();
        let last = ops::slice(&out, ids.len() - 1, 1).unwrap();
        let logits = ops::linear(&last, &g.param(vlm.decoder.head()), None).unwrap().tensor().to_f64().unwrap();
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u32;
        if stop.contains(&best) {
            break;
        }
        ids.push(best);
    }
    ids[prompt.len()..].to_vec()
}

#[test]
fn batches_and_caches_change_no_answer() {
    let variants =
        [(ImageAttention::Full, ImagePositions::Shared), (ImageAttention::Causal, ImagePositions::Sequential)];
    for (attention, positions) in variants {
        let mut config = tiny();
        config.decoder.image_attention = attention;
        config.decoder.image_positions = positions;
        let (vlm, params) = build(&config, DType::F64);
        let images = pixels(&params, 3, 8, 1);
        // More than one batch, images out of order, prompts of 1 to 6 tokens.
        let prompts: Vec<(usize, Vec<u32>)> =
            (0..70).map(|i| ((i * 7) % 3, (0..1 + i % 6).map(|t| ((i + 3 * t) % 11) as u32).collect())).collect();
        let stop = [2, 7];
        let answers = vlm.answer(&params, &images, &prompts, 5, &stop).unwrap();
        let lengths: std::collections::HashSet<usize> = answers.iter().map(Vec::len).collect();
        assert!(lengths.len() > 1, "answers of different lengths: {lengths:?}");
        for ((image, prompt), answer) in prompts.iter().zip(&answers) {
            let one = ops::embedding(
                &Var::constant(images.clone()),
                &Tensor::from_slice(params.device(), &[*image as i32], [1]).unwrap(),
            );
            let one = one.unwrap().tensor().clone();
            let expected = plain(&vlm, &params, &one, prompt, 5, &stop);
            assert_eq!(*answer, expected);
            let mut seen = Vec::new();
            let alone = vlm.generate(&params, &one, prompt, &settings(5, &stop), |token| {
                seen.push(token);
                ControlFlow::Continue(())
            });
            assert_eq!(alone.unwrap(), expected);
            assert_eq!(seen, expected);
        }
    }
}

#[test]
fn the_listener_can_stop() {
    let (vlm, params) = build(&tiny(), DType::F32);
    let image = pixels(&params, 1, 8, 1);
    let answer = vlm.generate(&params, &image, &[4, 8], &settings(5, &[]), |_| ControlFlow::Break(()));
    assert_eq!(answer.unwrap().len(), 1);
    let full = vlm.generate(&params, &image, &[4, 8], &settings(5, &[]), |_| ControlFlow::Continue(()));
    assert_eq!(full.unwrap().len(), 5);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let (vlm, params) = build(&tiny(), DType::F32);
    let image = pixels(&params, 1, 8, 1);
    let run = |prompt: &[u32], max_new| {
        let result = vlm.generate(&params, &image, prompt, &settings(max_new, &[]), |_| ControlFlow::Continue(()));
        result.unwrap_err().to_string()
    };
    assert!(run(&[], 1).contains("empty"));
    assert!(run(&[1], 1000).contains("more than 64"));
    assert!(run(&[99], 1).contains("99"));
    let error = vlm.answer(&params, &image, &[(1, vec![1])], 1, &[]).unwrap_err();
    assert!(error.to_string().contains("image 1 of 1"), "{error}");
}

/// Answers, each alone with a cache that goes on from prompt to prompt.
fn resumed(generator: &Generator<'_>, requests: &[Request]) -> Vec<Vec<u32>> {
    let mut kept: Option<Kept> = None;
    let answer = |request| {
        let answer = generator.resume(&mut kept, request, &mut |_| ControlFlow::Continue(()));
        answer.unwrap().ids
    };
    requests.iter().map(answer).collect()
}

#[test]
fn several_images_stand_in_front_in_their_order() {
    let variants =
        [(ImageAttention::Full, ImagePositions::Shared), (ImageAttention::Causal, ImagePositions::Sequential)];
    for (attention, positions) in variants {
        let mut config = tiny();
        config.decoder.image_attention = attention;
        config.decoder.image_positions = positions;
        let (vlm, params) = build(&config, DType::F64);
        let images = pixels(&params, 3, 8, 1);
        let mut generator = Generator::of_vlm(&vlm, &params);
        assert_eq!(generator.see(&pixels(&params, 1, 8, 9)).unwrap(), 0..1);
        assert_eq!(generator.see(&images).unwrap(), 1..4);
        let request = |ids: &[u32], images: &[usize]| Request {
            prompt: Prompt { ids: ids.to_vec(), images: images.to_vec() },
            settings: settings(4, &[2]),
        };
        let lists: [&[usize]; 6] = [&[1], &[1, 2], &[], &[2, 1], &[1, 2], &[1, 2, 3]];
        let prompts: [&[u32]; 6] = [&[4, 8], &[4, 8, 5, 9], &[7], &[4, 8], &[4, 8, 5], &[9, 4, 4]];
        let requests: Vec<Request> = prompts.iter().zip(lists).map(|(ids, images)| request(ids, images)).collect();
        let together = generator.run(&requests, &mut |_| ControlFlow::Continue(())).unwrap();
        let together: Vec<Vec<u32>> = together.into_iter().map(|answer| answer.ids).collect();
        assert_eq!(resumed(&generator, &requests), together);
        // By hand: all slots as if they were one image's.
        let g = Graph::inference(&params);
        let visual = vlm.visual_tokens(&g, &g.input(images)).unwrap();
        let [_, slots, dim] = visual.shape()[..] else { panic!() };
        for ((ids, list), answer) in prompts.iter().zip(lists).zip(&together).filter(|((_, list), _)| !list.is_empty())
        {
            let chosen: Vec<i32> = list.iter().map(|&image| image as i32 - 1).collect();
            let chosen = Tensor::from_slice(params.device(), &chosen, [chosen.len()]).unwrap();
            let shown = ops::embedding(&visual, &chosen).unwrap();
            let shown = ops::reshape(&shown, [1, list.len() * slots, dim]).unwrap();
            assert_eq!(*answer, plain_behind(&vlm, &params, &shown, ids, 4, &[2]), "{list:?}");
        }
    }
}

#[test]
fn no_prompts_and_no_tokens_are_fine() {
    let (vlm, params) = build(&tiny(), DType::F32);
    let image = pixels(&params, 1, 8, 1);
    assert!(vlm.answer(&params, &image, &[], 3, &[]).unwrap().is_empty());
    assert_eq!(vlm.answer(&params, &image, &[(0, vec![1])], 0, &[]).unwrap(), [Vec::<u32>::new()]);
}

//! Answers are the reference's, token by token: tests/fixtures/generation.py made what is expected. A cache, a batch and a
//! beam change none of them.

#[allow(unreachable_pub)]
#[path = "../../model/tests/common/data.rs"]
mod data;

use engine::ops::{self, Attend};
use engine::{DType, Device, Graph, Params, Tensor};
use model::hf::{self, Model};
use model::weights::TensorFile;
use model::{Answer, Beams, Decoder, Finish, Generation, Generator, Kept, Prompt, Request, Sampler};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// What stands for an image in the prompts of all cases that have any.
const IMAGE_TOKEN: u32 = 39;

#[derive(Deserialize)]
struct Case {
    model: String,
    max_new: usize,
    prompts: Vec<Vec<u32>>,
    images: Vec<Vec<usize>>,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    num_beams: usize,
    length_penalty: Option<f64>,
    repetition_penalty: Option<f64>,
    stop: Vec<u32>,
    answers: Vec<Vec<u32>>,
}

impl Case {
    fn request(&self, run: &Run, prompt: usize) -> Request {
        Request {
            prompt: Prompt { ids: self.prompts[prompt].clone(), images: self.images[prompt].clone() },
            settings: Generation {
                max_new: self.max_new,
                stop: run.stop.clone(),
                sampler: Sampler { repetition_penalty: run.repetition_penalty.unwrap_or(1.0), ..Sampler::default() },
                beams: Beams { num_beams: run.num_beams, length_penalty: run.length_penalty.unwrap_or(1.0) },
                ..Generation::default()
            },
        }
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn cases() -> Vec<Case> {
    let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(fixtures().join("generation.json")).unwrap()).unwrap();
    assert_eq!(cases.len(), 7, "a case is missing");
    cases
}

fn open(name: &str, dtype: DType) -> (Model, Params) {
    hf::load(&fixtures().join("parity").join(name), &Device::cpu(), dtype, true).unwrap()
}

/// A generator of the model, which has seen the two images of its parity case.
fn generator<'m>(name: &str, model: &'m Model, params: &'m Params) -> Generator<'m> {
    match model {
        Model::Decoder(decoder) => Generator::of_decoder(decoder, params),
        Model::Vlm(vlm) => {
            let file = fixtures().join("parity").join(name).join("expected.safetensors");
            let pixels = TensorFile::open(&file).unwrap().tensor("pixel_values", params.device()).unwrap();
            let mut generator = Generator::of_vlm(vlm, params);
            let seen = generator.see(&pixels.cast(params.dtype()).unwrap()).unwrap();
            assert_eq!(seen, 0..2);
            generator
        }
        _ => panic!("{name} generates nothing"),
    }
}

fn silent(generator: &Generator<'_>, requests: &[Request]) -> Vec<Answer> {
    generator.run(requests, &mut |_| ControlFlow::Continue(())).unwrap()
}

#[test]
fn greedy_and_beam_answers_are_the_references() {
    let mut compared = 0;
    for case in cases() {
        let (model, params) = open(&case.model, DType::F32);
        let generator = generator(&case.model, &model, &params);
        let mut all = Vec::new();
        for run in &case.runs {
            let requests: Vec<Request> = (0..case.prompts.len()).map(|i| case.request(run, i)).collect();
            let what = format!("{}: {} beams, stop {:?}", case.model, run.num_beams, run.stop);
            for (request, expected) in requests.iter().zip(&run.answers) {
                let alone = silent(&generator, std::slice::from_ref(request));
                assert_eq!(alone[0].ids, *expected, "{what}, penalties {:?}", request.settings);
                compared += 1;
            }
            for (answer, expected) in silent(&generator, &requests).iter().zip(&run.answers) {
                assert_eq!(answer.ids, *expected, "{what}, in a batch");
                let ended = matches!(answer.finish, Finish::Token(token) if run.stop.contains(&token));
                assert!(ended || answer.finish == Finish::Length && answer.ids.len() == case.max_new, "{what}");
            }
            all.extend(requests.into_iter().zip(&run.answers));
        }
        // Rows of all kinds together, greedy ones and beams: 3 to 9 rows per request leave one by one.
        let (requests, expected): (Vec<Request>, Vec<&Vec<u32>>) = all.into_iter().unzip();
        for (answer, expected) in silent(&generator, &requests).iter().zip(expected) {
            assert_eq!(answer.ids, *expected, "{}: all in one batch", case.model);
        }
    }
    assert_eq!(compared, 7 * 15 * 3);
}

/// The likeliest next tokens when the whole sequence is computed again for each.
fn recomputed(decoder: &Decoder, params: &Params, prompt: &[u32], max_new: usize) -> Vec<u32> {
    let mut ids: Vec<i32> = prompt.iter().map(|&id| id as i32).collect();
    for _ in 0..max_new {
        let g = Graph::inference(params);
        let tensor = |x: &[i32]| Tensor::from_slice(params.device(), x, [1, x.len()]).unwrap();
        let x = decoder.embed(&g, &tensor(&ids)).unwrap();
        let positions: Vec<i32> = (0..ids.len() as i32).collect();
        let out = decoder.forward(&g, &x, &tensor(&positions), &Attend::causal()).unwrap();
        let last = ops::slice(&out, ids.len() - 1, 1).unwrap();
        let logits = decoder.logits(&g, &last).unwrap().tensor().to_f64().unwrap();
        let best = |a: usize, b: usize| if logits[b] > logits[a] { b } else { a };
        ids.push((0..logits.len()).reduce(best).unwrap() as i32);
    }
    ids[prompt.len()..].iter().map(|&id| id as u32).collect()
}

#[test]
fn a_cache_changes_no_token_beyond_a_window_either() {
    for case in cases() {
        let (model, params) = open(&case.model, DType::F64);
        let Model::Decoder(decoder) = &model else { continue };
        let generator = Generator::of_decoder(decoder, &params);
        for i in 0..case.prompts.len() {
            let mut request = case.request(&case.runs[0], i);
            request.settings.max_new = 30;
            let expected = recomputed(decoder, &params, &case.prompts[i], 30);
            assert_eq!(silent(&generator, &[request])[0].ids, expected, "{}", case.model);
        }
    }
}

#[test]
fn the_turns_of_a_conversation_share_their_cache() {
    for case in cases() {
        let (model, params) = open(&case.model, DType::F64);
        let generator = generator(&case.model, &model, &params);
        let run = |i: usize| &case.runs[i];
        let mut kept: Option<Kept> = None;
        // Greedy, then on from there; another prompt about other images; a beam; the first again.
        for (turn, (prompt, way)) in [(0, 0), (0, 0), (1, 0), (1, 6), (0, 0)].into_iter().enumerate() {
            let mut request = case.request(run(way), prompt);
            if turn == 1 {
                let said = case.runs[0].answers[0].iter().filter(|&&id| id != IMAGE_TOKEN);
                request.prompt.ids.extend(said);
                request.prompt.ids.extend([3, 4]);
            }
            let resumed = generator.resume(&mut kept, &request, &mut |_| ControlFlow::Continue(()));
            assert_eq!(resumed.unwrap(), silent(&generator, &[request])[0], "{}: turn {turn}", case.model);
        }
    }
}

#[test]
fn draws_repeat_by_their_seed_in_a_batch_as_alone() {
    let case = &cases()[0];
    let (model, params) = open(&case.model, DType::F64);
    let generator = generator(&case.model, &model, &params);
    let request = |i: usize, seed| {
        let mut request = case.request(&case.runs[0], i);
        request.settings.sampler = Sampler { temperature: 8.0, min_p: 0.01, seed, ..Sampler::default() };
        request
    };
    let requests = [request(0, 1), request(1, 1), request(0, 2), request(0, 1), request(2, 3)];
    let answers = silent(&generator, &requests);
    assert_eq!(answers[0], answers[3]);
    assert_ne!(answers[0], answers[2]);
    for (request, answer) in requests.iter().zip(&answers) {
        assert_eq!(silent(&generator, std::slice::from_ref(request))[0], *answer);
    }
}

#[test]
fn images_and_their_tokens_must_agree() {
    let case = cases().into_iter().find(|case| case.model == "llava").unwrap();
    let (model, params) = open("llava", DType::F32);
    let generator = generator("llava", &model, &params);
    let refused = |ids: &[u32], images: &[usize]| {
        let mut request = case.request(&case.runs[0], 0);
        request.prompt = Prompt { ids: ids.to_vec(), images: images.to_vec() };
        let answers = generator.run(&[request], &mut |_| ControlFlow::Continue(()));
        answers.unwrap_err().to_string()
    };
    assert!(refused(&[1, 39, 5], &[]).contains("1 image tokens (id 39) for 0 images"));
    assert!(refused(&[1, 39, 5], &[0, 1]).contains("1 image tokens (id 39) for 2 images"));
    assert!(refused(&[1, 39, 5], &[2]).contains("image 2 of 2"));
    assert!(refused(&[1, 40], &[]).contains("id 40"));
    assert!(refused(&[1; 60], &[]).contains("more than 64"));
    let (text, params) = open("mistral-window", DType::F32);
    let Model::Decoder(decoder) = &text else { panic!() };
    let pixels = Tensor::zeros(params.device(), DType::F32, [1, 3, 12, 12]).unwrap();
    let error = Generator::of_decoder(decoder, &params).see(&pixels).unwrap_err();
    assert!(error.to_string().contains("sees none"), "{error}");
}

#[derive(Deserialize)]
struct Warpers {
    logits: Vec<Vec<f64>>,
    seen: Vec<u32>,
    cases: Vec<Warped>,
}

#[derive(Deserialize)]
struct Warped {
    row: usize,
    temperature: f64,
    top_k: usize,
    top_p: f64,
    min_p: f64,
    repetition_penalty: f64,
    kept: BTreeMap<usize, f64>,
}

#[test]
fn samplers_keep_the_references_tokens() {
    let made: Warpers = serde_json::from_slice(&std::fs::read(fixtures().join("warpers.json")).unwrap()).unwrap();
    assert_eq!(made.cases.len(), 4 * 216);
    for case in &made.cases {
        let sampler = Sampler {
            temperature: case.temperature,
            top_k: case.top_k,
            top_p: case.top_p,
            min_p: case.min_p,
            repetition_penalty: case.repetition_penalty,
            seed: 0,
        };
        let found = sampler.probabilities(&made.logits[case.row], &made.seen).unwrap();
        for (id, p) in found.iter().enumerate() {
            let expected = case.kept.get(&id);
            assert_eq!(*p > 0.0, expected.is_some(), "row {}: token {id}, {sampler:?}", case.row);
            let off = (p - expected.copied().unwrap_or(0.0)).abs();
            assert!(off < 1e-6, "row {}: token {id} off by {off}, {sampler:?}", case.row);
        }
    }
}

#[derive(Deserialize)]
struct Golden {
    greedy_ids: Vec<u32>,
}

#[test]
fn a_trained_llama_tells_its_golden_story() {
    let Some(folder) = data::folder("stories260K") else {
        return;
    };
    let golden: Golden = serde_json::from_slice(&std::fs::read(folder.join("golden.json")).unwrap()).unwrap();
    assert_eq!((golden.greedy_ids.len(), golden.greedy_ids[0]), (257, 1));
    let (model, params) = hf::load(&folder, &Device::cpu(), DType::F32, true).unwrap();
    let Model::Decoder(decoder) = &model else { panic!("a language model") };
    let request =
        Request { prompt: Prompt::text(&[1]), settings: Generation { max_new: 256, ..Generation::default() } };
    let mut streamed = Vec::new();
    let answers = Generator::of_decoder(decoder, &params).run(&[request], &mut |piece| {
        streamed.extend(piece.token);
        ControlFlow::Continue(())
    });
    assert_eq!(answers.unwrap()[0].ids, golden.greedy_ids[1..]);
    assert_eq!(streamed, golden.greedy_ids[1..]);
    assert_eq!(recomputed(decoder, &params, &[1], 256), golden.greedy_ids[1..]);
}

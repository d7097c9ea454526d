//! Pairs for image–text matching: how wrong ones are drawn, on the CPU and on the emulated GPU.

mod common;

use common::*;
use kernels::gpu::Emulation;
use kernels::matching::*;
use kernels::{Buffer, DType, Device, Error, Stored, View, ViewMut};

/// What the pairs are drawn from.
struct Batch {
    p: Matching,
    scores: Vec<f32>,
    log_scale: f32,
    truth: Vec<u8>,
    uniform: Vec<f64>,
}

impl Batch {
    /// Random scores and draws; every fifth caption is true of an image besides its own.
    fn random(n: usize, queries: usize, hardness: f64) -> Batch {
        let truth = |place: usize| u8::from(place / n == place % n || place % 5 == 3);
        Batch {
            p: Matching { n, queries, hardness },
            scores: numbers(n * queries * n, 1).iter().map(|x| *x as f32 / 2.0).collect(),
            log_scale: 1.5,
            truth: (0..n * n).map(truth).collect(),
            uniform: numbers(2 * n, 2).iter().map(|x| x.abs() / 2.0).collect(),
        }
    }

    /// Images, texts and labels.
    fn draw(&self, device: &Device) -> kernels::Result<[Vec<i32>; 3]> {
        fn held<T: Stored>(device: &Device, data: &[T]) -> Buffer {
            let mut buffer = device.allocate(size_of_val(data)).unwrap();
            ViewMut::new(&mut buffer, T::DTYPE, 0, data.len()).upload(data).unwrap();
            buffer
        }
        let n = self.p.n;
        let scores = held(device, &self.scores);
        let scale = held(device, &[self.log_scale]);
        let (truth, uniform) = (held(device, &self.truth), held(device, &self.uniform));
        let mut lists = [(); 3].map(|()| held(device, &vec![-1; 3 * n]));
        let [images, texts, labels] = &mut lists;
        let list = |buffer| ViewMut::new(buffer, DType::I32, 0, 3 * n);
        draw_pairs(
            &self.p,
            View::new(&scores, DType::F32, 0, self.scores.len()),
            View::new(&scale, DType::F32, 0, 1),
            View::new(&truth, DType::U8, 0, self.truth.len()),
            View::new(&uniform, DType::F64, 0, self.uniform.len()),
            Lists { images: list(images), texts: list(texts), labels: list(labels) },
        )?;
        Ok(lists.map(|list| View::new(&list, DType::I32, 0, 3 * n).download().unwrap()))
    }
}

#[test]
fn wrong_pairs_are_drawn_by_similarity_and_never_true() {
    // Image 0 is close to texts 1 and 2, and 2 is also true of it.
    let mut scores = vec![0.0; 16];
    (0..4).for_each(|i| scores[5 * i] = 9.0);
    (scores[1], scores[2]) = (2.0, 2.0);
    let mut truth: Vec<u8> = (0..16).map(|place| u8::from(place % 5 == 0)).collect();
    truth[2] = 1;
    let mut counts = [0; 4];
    let uniform = numbers(32_000, 1);
    for uniform in uniform.chunks_exact(8) {
        let batch = Batch {
            p: Matching { n: 4, queries: 1, hardness: 1.0 },
            scores: scores.clone(),
            log_scale: 0.0,
            truth: truth.clone(),
            uniform: uniform.iter().map(|x| x.abs() / 2.0).collect(),
        };
        let [images, texts, labels] = batch.draw(&Device::cpu()).unwrap();
        assert_eq!(images[..8], [0, 1, 2, 3, 0, 1, 2, 3]);
        assert_eq!((&texts[..4], &texts[8..]), (&[0, 1, 2, 3][..], &[0, 1, 2, 3][..]));
        assert_eq!(labels, [1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert!((4..12).all(|pair| truth[(images[pair] * 4 + texts[pair]) as usize] == 0));
        counts[texts[4] as usize] += 1;
    }
    assert_eq!((counts[0], counts[2]), (0, 0));
    // e² / (e² + e⁰) = 0.88 of 4000, give or take four standard deviations of 20.
    assert!((counts[1] as f64 - 3523.0).abs() < 82.0, "{counts:?}");
}

#[test]
fn the_best_query_and_the_largest_scale_count() {
    let mut batch = Batch::random(2, 2, 1.0);
    // Nothing is drawn between two, so that only what is compared could go wrong: three texts, two queries.
    batch.p.n = 3;
    batch.truth = (0..9).map(|place| u8::from(place % 4 == 0)).collect();
    batch.scores = vec![0.0; 18];
    // Image 0: its second query is close to text 2, its first far from it.
    (batch.scores[2], batch.scores[5]) = (-9.0, 0.5);
    batch.uniform = vec![0.5; 6];
    batch.log_scale = 100.0f32.ln();
    // At a scale of 100 text 2 is e⁵⁰ times as likely as text 1.
    assert_eq!(batch.draw(&Device::cpu()).unwrap()[1][3], 2);
    batch.p.hardness = 0.0;
    batch.uniform = vec![0.49; 6];
    assert_eq!(batch.draw(&Device::cpu()).unwrap()[1][3], 1, "both are as likely");
}

#[test]
fn without_a_wrong_one_the_own_comes_back_as_true() {
    let mut batch = Batch::random(3, 1, 1.0);
    batch.truth = vec![1; 9];
    for device in [Device::cpu(), Device::emulated(Emulation::default()).unwrap()] {
        let [images, texts, labels] = batch.draw(&device).unwrap();
        assert_eq!((&images, labels), (&texts, vec![1; 9]));
        assert_eq!(images, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
    }
}

#[test]
fn the_emulated_gpu_draws_what_the_cpu_draws() {
    let checked = Emulation { seed: 3, check: true };
    let devices = [Emulation::default(), checked].map(|settings| Device::emulated(settings).unwrap());
    for n in [1, 2, 7, 32, 33, 100] {
        for (queries, hardness) in [(1, 1.0), (3, 0.2), (2, 0.0)] {
            let batch = Batch::random(n, queries, hardness);
            let expected = batch.draw(&Device::cpu()).unwrap();
            for device in &devices {
                assert_eq!(batch.draw(device).unwrap(), expected, "{:?}", batch.p);
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let mut batch = Batch::random(3, 2, 1.0);
    batch.uniform.pop();
    let error = batch.draw(&Device::cpu()).unwrap_err();
    assert!(matches!(error, Error::Length { what: "uniform", .. }), "{error}");
    let mut batch = Batch::random(3, 1, 1.0);
    batch.p.queries = 0;
    batch.scores.clear();
    let error = batch.draw(&Device::cpu()).unwrap_err();
    assert!(error.to_string().contains("one query"), "{error}");
}

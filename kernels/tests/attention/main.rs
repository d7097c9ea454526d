//! Attention against plain double-precision arithmetic.

mod call;
mod reference;

use call::{buffer, random, round, run, view, view_mut};
use half::bf16;
use kernels::attention::{Attention, Mask, attention};
use kernels::cpu::simd::{Isa, set_isa};
use kernels::{DType, Error, View};
use reference::{Case, backward, forward};
use std::sync::Mutex;

/// Held by tests that choose the instruction set or compare bits.
static ISA: Mutex<()> = Mutex::new(());

/// The largest difference; infinite where one is NaN or only one is infinite.
fn distance(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let difference = |(x, y): (&f64, &f64)| if x == y { 0.0 } else { (x - y).abs() };
    let largest = |m: f64, d: f64| if d.is_nan() { f64::INFINITY } else { m.max(d) };
    found.iter().zip(expected).map(difference).fold(0.0, largest)
}

fn magnitude(x: &[f64]) -> f64 {
    x.iter().filter(|x| x.is_finite()).fold(1.0, |m, x| m.max(x.abs()))
}

fn close(what: &str, case: &Case, found: &[f64], expected: &[f64], tolerance: f64) {
    let (found, bound) = (distance(found, expected), tolerance * magnitude(expected));
    assert!(found <= bound, "{what} off by {found:e}, allowed {bound:e}: {case:?}");
}

/// The factors dropout puts on the weights, read off the kernel itself: with values that form an identity matrix the
/// output is the dropped weights.
fn dropout_factors(c: &Case) -> Vec<f64> {
    if c.dropout == 0.0 {
        return vec![1.0; c.rows() * c.k_len];
    }
    let probe =
        Case { dim: c.k_len, kv_heads: 1, mask: Mask::Full, q_lens: None, k_lens: None, segments: None, ..c.clone() };
    let identity = |_| (0..c.k_len * c.k_len).map(|i| if i / c.k_len == i % c.k_len { 1.0 } else { 0.0 });
    let v: Vec<f64> = (0..c.batch).flat_map(identity).collect();
    let zeros = vec![0.0; probe.q_size()];
    let results = run::<f64>(&probe, &zeros, &v, &v, &zeros);
    let factor = |i: usize| {
        let (row, j) = (i / c.k_len, i % c.k_len);
        let (b, h, query) = (row / c.q_len / c.q_heads, row / c.q_len % c.q_heads, row % c.q_len);
        results.out[((b * c.q_len + query) * c.q_heads + h) * c.k_len + j] * c.k_len as f64
    };
    (0..c.rows() * c.k_len).map(factor).collect()
}

fn inputs(c: &Case) -> [Vec<f64>; 4] {
    let (mut k, mut v) = (random(c.kv_size(), 2), random(c.kv_size(), 3));
    if c.kv_stride > c.k_len {
        // What a cache holds beyond its tokens is arbitrary.
        let token = c.kv_heads * c.dim;
        for b in 0..c.batch {
            let used = c.k_lens.as_ref().map_or(c.k_len, |lens| lens[b] as usize);
            for x in [&mut k, &mut v] {
                x[(b * c.kv_stride + used) * token..(b + 1) * c.kv_stride * token].fill(f64::NAN);
            }
        }
    }
    [random(c.q_size(), 1), k, v, random(c.q_size(), 4)]
}

/// Single precision: sums of up to 257 products of order 1, each rounded at 6e-8, stay within 1e-5 of the largest.
/// Gradients get three times that: dP − D cancels, wholly where there is one key, and leaves the rounding of dots as
/// long as a head is wide. Double precision runs the same body; 1e-12 leaves room for a different order of sums.
fn check_exact(c: &Case) {
    let [q, k, v, dout] = inputs(c);
    let keep = dropout_factors(c);
    for (results, tolerance) in [(run::<f64>(c, &q, &k, &v, &dout), 1e-12), (run::<f32>(c, &q, &k, &v, &dout), 1e-5)] {
        let expected = forward(c, &q, &k, &v, &keep);
        close("out", c, &results.out, &expected.out, tolerance);
        close("lse", c, &results.lse, &expected.lse, tolerance);
        close("weights", c, &results.weights, &expected.weights, tolerance);
        if c.kv_stride == c.k_len {
            let expected = backward(c, &q, &k, &v, &keep, &dout);
            for (what, (found, expected)) in ["dq", "dk", "dv"].iter().zip(results.gradients.iter().zip(&expected)) {
                close(what, c, found, expected, 3.0 * tolerance);
            }
        }
    }
}

/// bf16: at most twice (gradients three times) the error that rounding the inputs and the exact result makes alone.
fn check_bf16(c: &Case) {
    let exact = inputs(c);
    let keep = dropout_factors(c);
    let rounded = [0, 1, 2, 3].map(|i| round::<bf16>(&exact[i]));
    let results = run::<bf16>(c, &rounded[0], &rounded[1], &rounded[2], &rounded[3]);
    let out = |[q, k, v, _]: &[Vec<f64>; 4]| forward(c, q, k, v, &keep).out;
    let gradients = |[q, k, v, dout]: &[Vec<f64>; 4]| backward(c, q, k, v, &keep, dout);
    let within = |what, found: &[f64], expected: &[f64], rounded: &[f64], factor: f64| {
        let (found, allowed) = (distance(found, expected), factor * distance(&round::<bf16>(rounded), expected));
        assert!(found <= allowed, "bf16 {what} off by {found:e}, allowed {allowed:e}: {c:?}");
    };
    within("out", &results.out, &out(&exact), &out(&rounded), 2.0);
    let (expected, rounded) = (gradients(&exact), gradients(&rounded));
    for (i, what) in ["dq", "dk", "dv"].into_iter().enumerate() {
        // With one key dq and dk are zero: what is left is the rounding of `out` in rowsum(dout ⊙ out).
        if c.k_len > 1 {
            within(what, &results.gradients[i], &expected[i], &rounded[i], 3.0);
        }
    }
}

const LENGTHS: [(usize, usize); 7] = [(1, 1), (1, 239), (239, 1), (64, 128), (113, 203), (257, 257), (32, 257)];
const DIMS: [usize; 7] = [8, 32, 40, 59, 64, 80, 128];
const HEADS: [(usize, usize); 3] = [(2, 2), (4, 2), (3, 1)];

/// Every length with every width and mask; the head arrangements take turns.
fn grid() -> impl Iterator<Item = Case> {
    let shapes = LENGTHS.iter().flat_map(|lengths| DIMS.iter().map(move |dim| (*lengths, *dim)));
    let masked = shapes.flat_map(|(lengths, dim)| [Mask::Full, Mask::Causal].map(|mask| (lengths, dim, mask)));
    masked.enumerate().map(|(i, (lengths, dim, mask))| Case::new(lengths, HEADS[i / 2 % 3], dim, mask))
}

/// Lengths, segments, prefixes, caches and dropout.
fn options() -> Vec<Case> {
    let base = |lengths, mask| Case::new(lengths, (4, 2), 24, mask);
    let segments = |tokens: usize| {
        let one = |s: usize| (0..tokens).map(move |j| if j + 3 + s > tokens { -1 } else { (j / 9) as i32 });
        Some((0..2).flat_map(one).collect())
    };
    vec![
        Case { q_lens: Some(vec![0, 17]), ..base((33, 40), Mask::Full) },
        Case { k_lens: Some(vec![21, 0]), ..base((33, 40), Mask::Causal) },
        Case { q_lens: Some(vec![33, 5]), k_lens: Some(vec![0, 39]), ..base((33, 40), Mask::Full) },
        base((50, 50), Mask::Window(1)),
        base((50, 50), Mask::Window(17)),
        base((33, 50), Mask::Window(70)),
        base((90, 40), Mask::Window(20)),
        base((50, 50), Mask::PrefixCausal(0)),
        base((50, 50), Mask::PrefixCausal(19)),
        Case { k_lens: Some(vec![50, 30]), ..base((50, 50), Mask::PrefixCausal(36)) },
        Case { segments: segments(45), ..base((45, 45), Mask::Causal) },
        Case { segments: segments(45), ..base((45, 45), Mask::Full) },
        Case { segments: segments(45), k_lens: Some(vec![44, 20]), ..base((12, 45), Mask::Causal) },
        Case { segments: segments(64), ..base((64, 64), Mask::PrefixCausal(10)) },
        Case { kv_stride: 70, k_lens: Some(vec![33, 8]), ..base((3, 41), Mask::Causal) },
        Case { kv_stride: 70, ..base((1, 41), Mask::Full) },
        Case { dropout: 0.3, ..base((37, 45), Mask::Causal) },
        Case { dropout: 0.5, segments: segments(40), q_lens: Some(vec![40, 9]), ..base((40, 40), Mask::Full) },
        base((70, 30), Mask::Causal),
    ]
}

#[test]
fn results_follow_the_textbook_over_the_grid() {
    grid().for_each(|case| check_exact(&case));
}

#[test]
fn bf16_adds_little_to_the_rounding_of_its_inputs() {
    grid().for_each(|case| check_bf16(&case));
}

#[test]
fn lengths_segments_prefixes_caches_and_dropout_are_heeded() {
    options().iter().for_each(check_exact);
}

#[test]
fn long_sequences_are_cut_into_blocks() {
    let case = Case { batch: 1, ..Case::new((70, 9000), (1, 1), 16, Mask::Causal) };
    check_exact(&case);
}

#[test]
fn every_instruction_set_agrees() {
    let _guard = ISA.lock().unwrap();
    for isa in Isa::ALL {
        set_isa(isa);
        options().iter().for_each(check_exact);
        grid().step_by(9).for_each(|case| check_exact(&case));
        grid().step_by(19).for_each(|case| check_bf16(&case));
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let _guard = ISA.lock().unwrap();
    let grouped = Case { batch: 5, dropout: 0.1, ..Case::new((61, 61), (6, 2), 24, Mask::Causal) };
    let decoding = Case { batch: 3, ..Case::new((1, 700), (6, 2), 64, Mask::Causal) };
    for case in [grouped, decoding, Case::new((257, 257), (2, 2), 64, Mask::Full)] {
        let [q, k, v, dout] = inputs(&case);
        let run_with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| run::<f32>(&case, &q, &k, &v, &dout))
        };
        let one = run_with(1);
        for threads in [2, 3] {
            let more = run_with(threads);
            assert_eq!(one.out, more.out, "{threads} threads");
            assert_eq!(one.lse, more.lse, "{threads} threads");
            assert_eq!(one.gradients, more.gradients, "{threads} threads");
        }
    }
}

#[test]
fn dropout_keeps_the_stated_share() {
    let case = Case { dropout: 0.3, ..Case::new((40, 50), (3, 1), 8, Mask::Full) };
    let factors = dropout_factors(&case);
    let kept = factors.iter().filter(|&&f| f != 0.0).count() as f64 / factors.len() as f64;
    // Twelve thousand draws: a standard deviation is 0.0042.
    assert!((kept - 0.7).abs() < 0.017, "kept {kept}");
    let mut rows: Vec<&[f64]> = factors.chunks(50).collect();
    rows.sort_by(|a, b| a.partial_cmp(b).expect("no NaN"));
    assert!(rows.windows(2).all(|pair| pair[0] != pair[1]), "two rows share a mask");
    assert!(factors.iter().all(|f| *f == 0.0 || (f - 1.0 / 0.7).abs() < 1e-12));
}

#[test]
fn the_reference_gradients_are_those_of_the_reference_output() {
    let mut cases = options();
    cases.retain(|case| case.kv_stride == case.k_len);
    for case in cases {
        let [q, k, v, dout] = inputs(&case);
        let keep = dropout_factors(&case);
        let gradients = backward(&case, &q, &k, &v, &keep, &dout);
        let loss = |x: &[Vec<f64>; 3]| -> f64 {
            forward(&case, &x[0], &x[1], &x[2], &keep).out.iter().zip(&dout).map(|(o, d)| o * d).sum()
        };
        let x = [q, k, v];
        for which in 0..3 {
            // Along a random direction: a central difference of step 1e-5 errs by about 1e-10 times the third derivative.
            let direction = random(x[which].len(), 9);
            let moved = |step: f64| {
                let mut moved = x.clone();
                moved[which].iter_mut().zip(&direction).for_each(|(x, d)| *x += step * d);
                loss(&moved)
            };
            let difference = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            let slope: f64 = gradients[which].iter().zip(&direction).map(|(g, d)| g * d).sum();
            assert!((difference - slope).abs() < 1e-6 * slope.abs().max(1.0), "{which}: {difference} {slope} {case:?}");
        }
    }
}

#[test]
fn impossible_calls_are_refused() {
    let zeros = vec![0f32; 2 * 6 * 4 * 8];
    let (x, mut y, lens) = (buffer(&zeros), buffer(&zeros), buffer(&[3i32, 7]));
    let fine = Attention {
        batch: 2,
        q_len: 6,
        k_len: 6,
        q_heads: 4,
        kv_heads: 4,
        head_dim: 8,
        scale: 1.0,
        mask: Mask::Full,
        kv_stride: 6,
        q_lens: None,
        k_lens: None,
        segments: None,
        dropout: 0.0,
        seed: 0,
    };
    let mut call = |p: Attention| {
        let (mut lse, size) = (buffer(&[0f32; 48]), zeros.len());
        let (mut out, mut lse) = (view_mut::<f32>(&mut y, size), view_mut::<f32>(&mut lse, 48));
        attention(&p, view::<f32>(&x, size), view::<f32>(&x, size), view::<f32>(&x, size), &mut out, &mut lse)
    };
    call(fine).unwrap();
    let lens = Some(View::new(&lens, DType::I32, 0, 2));
    let heads = Attention { kv_heads: 3, ..fine };
    let long = Attention { k_lens: lens, ..fine };
    for refused in [heads, long, Attention { dropout: 1.0, ..fine }, Attention { kv_stride: 5, ..fine }] {
        let error = call(refused).unwrap_err();
        assert!(matches!(error, Error::Value { .. }), "{error}");
    }
    let message = call(long).unwrap_err().to_string();
    assert!(message.contains("k_lens[1] is 7"), "{message}");
    assert!(matches!(call(Attention { q_len: 5, ..fine }), Err(Error::Length { what: "q", .. })));
}

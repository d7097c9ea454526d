//! The CUDA kernels of the losses, emulated, against the CPU in f64 on the same rounded inputs.

mod common;

use common::{close, numbers, rounded};
use half::bf16;
use kernels::contrastive::{
    Contrastive, Features, Gradients, clip_loss, clip_loss_backward, siglip_loss, siglip_loss_backward,
};
use kernels::gpu::Emulation;
use kernels::loss::{CrossEntropy, Outputs, linear_cross_entropy};
use kernels::{Buffer, DType, Device, Result, View, ViewMut};

const IGNORE: i32 = -100;
const TYPES: [DType; 2] = [DType::F32, DType::BF16];

fn emulated(seed: u64, check: bool) -> Device {
    Device::emulated(Emulation { seed, check }).unwrap()
}

/// A buffer of any device with the number and type of its elements.
struct Array {
    buffer: Buffer,
    dtype: DType,
    len: usize,
}

impl Array {
    fn empty(device: &Device, dtype: DType, len: usize) -> Array {
        let buffer = device.allocate(len * dtype.size()).unwrap();
        Array { buffer, dtype, len }
    }

    fn new(device: &Device, dtype: DType, values: &[f64]) -> Array {
        let mut array = Array::empty(device, dtype, values.len());
        let mut view = array.view_mut();
        match dtype {
            DType::F64 => view.upload(values),
            DType::F32 => view.upload(&values.iter().map(|&v| v as f32).collect::<Vec<_>>()),
            DType::BF16 => view.upload(&values.iter().map(|&v| bf16::from_f32(v as f32)).collect::<Vec<_>>()),
            _ => view.upload(&values.iter().map(|&v| v as i32).collect::<Vec<_>>()),
        }
        .unwrap();
        array
    }

    fn view(&self) -> View<'_> {
        View::new(&self.buffer, self.dtype, 0, self.len)
    }

    fn view_mut(&mut self) -> ViewMut<'_> {
        ViewMut::new(&mut self.buffer, self.dtype, 0, self.len)
    }

    fn values(&self) -> Vec<f64> {
        let view = self.view();
        match self.dtype {
            DType::F64 => view.download().unwrap(),
            DType::F32 => view.download::<f32>().unwrap().into_iter().map(f64::from).collect(),
            DType::BF16 => view.download::<bf16>().unwrap().iter().map(|v| v.to_f64()).collect(),
            _ => view.download::<i32>().unwrap().into_iter().map(f64::from).collect(),
        }
    }
}

/// What a loss writes, by name; in bits, to compare, each value is as good as its f64.
type Answer = Vec<(&'static str, Vec<f64>)>;

fn find<'a>(answer: &'a Answer, name: &str) -> &'a [f64] {
    &answer.iter().find(|(found, _)| *found == name).unwrap().1
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |m, v| v.abs().max(m))
}

/// Requires |found − expected| ≤ tolerance · max(|expected|, least); `least` for each name from what is expected.
fn compare(what: &str, found: &Answer, expected: &Answer, bounds: impl Fn(&str, &[f64]) -> (f64, f64)) {
    for ((name, found), (_, expected)) in found.iter().zip(expected) {
        let (tolerance, least) = bounds(name, expected);
        close(&format!("{what}: {name}"), found, expected, tolerance, tolerance * least);
    }
}

#[derive(Clone)]
struct Linear {
    p: CrossEntropy,
    x: Vec<f64>,
    w: Vec<f64>,
    targets: Vec<f64>,
}

impl Linear {
    /// Logits of a few units; every `skip`-th row is ignored (0: none), and holds NaN.
    fn new([rows, dim, vocab]: [usize; 3], skip: usize) -> Linear {
        let ignored = |row: usize| skip > 0 && row % skip == skip - 1;
        let unit = (dim as f64).powf(-0.25) * 1.5;
        let scaled = |n, seed| numbers(n, seed).iter().map(|v| v * unit).collect::<Vec<_>>();
        let mut x = scaled(rows * dim, 1);
        for row in (0..rows).filter(|&row| ignored(row)) {
            x[row * dim..][..dim].fill(f64::NAN);
        }
        let target = |row| {
            if ignored(row) { IGNORE as f64 } else { (row * 7919 % vocab) as f64 }
        };
        Linear {
            p: CrossEntropy { rows, dim, vocab, ignore_index: IGNORE },
            x,
            w: scaled(vocab * dim, 2),
            targets: (0..rows).map(target).collect(),
        }
    }

    fn rounded(&self, dtype: DType) -> Linear {
        let (x, w) = (rounded(dtype, &self.x), rounded(dtype, &self.w));
        Linear { x, w, ..self.clone() }
    }

    fn run(&self, device: &Device, t: DType, (with_dx, with_dw): (bool, bool)) -> Result<Answer> {
        let (CrossEntropy { rows, dim, vocab, .. }, acc) = (self.p, t.accumulator());
        let (x, w) = (Array::new(device, t, &self.x), Array::new(device, t, &self.w));
        let targets = Array::new(device, DType::I32, &self.targets);
        let lengths = [(acc, 1), (acc, rows), (DType::I32, rows), (t, rows * dim), (acc, vocab * dim)];
        let mut out = lengths.map(|(dtype, len)| Array::empty(device, dtype, len));
        let [loss, losses, predictions, dx, dw] = &mut out;
        let outputs = Outputs {
            loss: loss.view_mut(),
            losses: losses.view_mut(),
            predictions: predictions.view_mut(),
            dx: with_dx.then(|| dx.view_mut()),
            dw: with_dw.then(|| dw.view_mut()),
        };
        linear_cross_entropy(&self.p, x.view(), w.view(), targets.view(), outputs)?;
        let names = ["loss", "losses", "predictions", "dx", "dw"];
        let present = [true, true, true, with_dx, with_dw];
        let all = names.into_iter().zip(&out).zip(present);
        Ok(all.filter(|(_, present)| *present).map(|((name, array), _)| (name, array.values())).collect())
    }

    /// The emulated kernels' answer against the CPU's in f64.
    fn check(&self, device: &Device, t: DType) {
        let case = self.rounded(t);
        let (expected, found) =
            (case.run(&Device::cpu(), DType::F64, (true, true)).unwrap(), case.run(device, t, (true, true)).unwrap());
        compare(&format!("{:?} in {t}", case.p), &found, &expected, |name, expected| match name {
            "predictions" => (0.0, 0.0),
            // The gradient of bf16 logits is rounded to bf16 (half of 2⁻⁷), and dx once more; sums may cancel.
            "dx" | "dw" if t == DType::BF16 => (5e-3, largest(expected).max(1e-4)),
            "dx" | "dw" => (1e-5, largest(expected).max(1e-4)),
            _ => (1e-5, 1.0),
        });
    }
}

#[test]
fn cross_entropy_follows_the_cpu() {
    let device = emulated(0, false);
    for t in TYPES {
        for (sizes, skip) in [
            ([1, 8, 2], 0),
            ([47, 31, 123], 0),
            ([47, 31, 123], 3),
            ([4, 47, 31], 0),
            ([7, 5, 1], 2),
            ([130, 64, 1000], 5),
            ([9, 16, 5003], 0),
        ] {
            Linear::new(sizes, skip).check(&device, t);
        }
    }
}

/// More rows than a chunk has: dw adds up.
#[test]
fn cross_entropy_takes_several_chunks() {
    for t in TYPES {
        Linear::new([1030, 4, 12], 7).check(&emulated(0, false), t);
    }
}

#[test]
fn cross_entropy_does_not_depend_on_the_order_of_threads() {
    let all = [(DType::F32, [47, 31, 123]), (DType::BF16, [47, 31, 123]), (DType::BF16, [40, 32, 128])];
    for (t, sizes) in all {
        let case = Linear::new(sizes, 3);
        let whole = case.run(&emulated(0, false), t, (true, true)).unwrap();
        for device in [emulated(1, false), emulated(7, false), emulated(0, true), emulated(1, true)] {
            assert!(case.run(&device, t, (true, true)).unwrap() == whole, "{t} {device:?}");
        }
        for wanted in [(false, false), (true, false), (false, true)] {
            let part = case.run(&emulated(0, false), t, wanted).unwrap();
            assert!(part.iter().all(|(name, values)| find(&whole, name) == values), "{t} {wanted:?}");
        }
    }
}

#[test]
fn cross_entropy_with_all_rows_ignored_gives_zeros() {
    for rows in [0, 33] {
        for t in TYPES {
            let case = Linear::new([rows, 16, 61], 1);
            for (name, values) in case.run(&emulated(0, false), t, (true, true)).unwrap() {
                let expected = if name == "predictions" { -1.0 } else { 0.0 };
                assert!(values.iter().all(|&v| v == expected), "{name} {t}: {values:?}");
            }
        }
    }
}

#[test]
fn cross_entropy_shows_what_is_no_number_and_no_class() {
    let device = emulated(0, false);
    for t in TYPES {
        let good = Linear::new([7, 16, 61], 0);
        let mut broken = good.clone();
        let unused = (0..61).find(|&id| !good.targets.contains(&f64::from(id))).unwrap();
        broken.w[unused as usize * 16] = f64::NAN;
        assert!(find(&broken.run(&device, t, (true, true)).unwrap(), "loss")[0].is_nan());
        for target in [61.0, -1.0, f64::from(i32::MIN)] {
            let mut foreign = good.clone();
            foreign.targets[5] = target;
            let answer = foreign.run(&device, t, (true, true)).unwrap();
            let losses = find(&answer, "losses");
            assert!(losses.iter().enumerate().all(|(row, loss)| loss.is_nan() == (row == 5)), "{losses:?}");
            assert!(find(&answer, "loss")[0].is_nan() && find(&answer, "dw")[0].is_nan());
            assert!(find(&answer, "dx")[5 * 16].is_nan() && find(&answer, "dx")[4 * 16].is_finite());
        }
    }
}

#[test]
fn cross_entropy_predicts_the_first_of_equals_and_bears_large_logits() {
    let device = emulated(0, false);
    let mut case = Linear::new([33, 16, 512], 0).rounded(DType::BF16);
    // A class and its copy are looked at by the same thread, others by neighbours.
    let copy = case.w[..100 * 16].to_vec();
    case.w[256 * 16..356 * 16].copy_from_slice(&copy);
    let copy = case.w[100 * 16..101 * 16].to_vec();
    case.w[100 * 16..200 * 16].copy_from_slice(&copy.repeat(100));
    case.x.iter_mut().for_each(|x| *x *= 1024.0);
    for t in TYPES {
        let found = case.run(&device, t, (true, true)).unwrap();
        let expected = case.run(&Device::cpu(), DType::F64, (true, true)).unwrap();
        assert_eq!(find(&found, "predictions"), find(&expected, "predictions"));
        assert!(find(&found, "predictions").iter().any(|&p| p < 100.0), "the copied classes win some row");
        close("loss", find(&found, "loss"), find(&expected, "loss"), 1e-5, 0.0);
        assert!(find(&found, "dw").iter().chain(find(&found, "dx")).all(|v| v.is_finite()));
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Loss {
    Clip,
    SigLip,
}

#[derive(Clone)]
struct Pairs {
    loss: Loss,
    p: Contrastive,
    image: Vec<f64>,
    text: Vec<f64>,
    scale: f64,
    bias: f64,
}

impl Pairs {
    /// Rows of length 1; each text is near one query of its image, so that the loss is neither 0 nor ln n.
    fn new(loss: Loss, [n, dim, groups]: [usize; 3], scale: f64) -> Pairs {
        let unit = |values: &[f64]| -> Vec<f64> {
            let norm = |row: &[f64]| row.iter().map(|v| v * v).sum::<f64>().sqrt();
            let rows = values.chunks_exact(dim);
            rows.flat_map(|row| row.iter().map(|v| v / norm(row)).collect::<Vec<_>>()).collect()
        };
        let image = unit(&numbers(n * groups * dim, 3));
        let noise = numbers(n * dim, 4);
        let near = |at: usize| image[(at / dim * groups + at / dim % groups) * dim + at % dim];
        let mixed: Vec<_> = (0..n * dim).map(|at| near(at) + noise[at] * (dim as f64).powf(-0.5)).collect();
        Pairs {
            loss,
            p: Contrastive { n, dim, groups },
            text: unit(&mixed),
            image,
            scale,
            bias: if scale > 50.0 { -40.0 } else { -3.0 },
        }
    }

    fn run(&self, device: &Device, t: DType) -> Result<Answer> {
        let (p, acc) = (&self.p, t.accumulator());
        let (image, text) = (Array::new(device, t, &self.image), Array::new(device, t, &self.text));
        let log_scale = self.scale.ln() as f32;
        let (log_scale, bias) =
            (Array::new(device, acc, &[f64::from(log_scale)]), Array::new(device, acc, &[self.bias]));
        let (image, text, log_scale, bias) = (image.view(), text.view(), log_scale.view(), bias.view());
        let lengths = [(acc, 1), (t, p.n * p.groups * p.dim), (t, p.n * p.dim), (acc, 1), (acc, p.n), (acc, p.n)];
        let mut out = lengths.map(|(dtype, len)| Array::empty(device, dtype, len));
        let [loss, dimage, dtext, dlog_scale, extra, col_lse] = &mut out;
        let (loss, f) = (&mut loss.view_mut(), Features { image, text, log_scale });
        let g = Gradients { dimage: dimage.view_mut(), dtext: dtext.view_mut(), dlog_scale: dlog_scale.view_mut() };
        let names = if self.loss == Loss::Clip {
            clip_loss(p, f, loss, &mut extra.view_mut(), &mut col_lse.view_mut())?;
            clip_loss_backward(p, f, extra.view(), col_lse.view(), g)?;
            vec!["loss", "dimage", "dtext", "dlog_scale", "row_lse", "col_lse"]
        } else {
            let mut dbias = ViewMut::new(&mut extra.buffer, acc, 0, 1);
            siglip_loss(p, f, bias, loss)?;
            siglip_loss_backward(p, f, bias, g, &mut dbias)?;
            extra.len = 1;
            vec!["loss", "dimage", "dtext", "dlog_scale", "dbias"]
        };
        Ok(names.into_iter().zip(out.iter().map(Array::values)).collect())
    }

    fn check(&self, device: &Device, t: DType) {
        let mut case = self.clone();
        (case.image, case.text) = (rounded(t, &case.image), rounded(t, &case.text));
        let expected = case.run(&Device::cpu(), DType::F64).unwrap();
        let found = case.run(device, t).unwrap();
        let what = format!("{:?} {:?} scale {} in {t}", case.loss, case.p, case.scale);
        // A score is rounded to about 2⁻²³ of the scale, which is an absolute error of the logarithm of a probability, and
        // so a relative one of the probability: 1e-5 up to a scale of 25, in proportion above.
        let exact = 1e-5 * (case.scale / 25.0).max(1.0);
        let gradient = [find(&expected, "dimage"), find(&expected, "dtext")].map(largest);
        let gradient = gradient[0].max(gradient[1]).max(case.scale / case.p.n as f64 * 1e-2);
        compare(&what, &found, &expected, |name, _| match name {
            // bf16 rounds the scores' gradient and each of the results once more.
            "dimage" | "dtext" if t == DType::BF16 => (5e-3, gradient),
            "dimage" | "dtext" => (exact, gradient),
            "dlog_scale" => (exact, case.scale),
            _ => (exact, 1.0),
        });
    }
}

#[test]
fn contrastive_losses_follow_the_cpu() {
    let device = emulated(0, false);
    for loss in [Loss::Clip, Loss::SigLip] {
        for t in TYPES {
            for (sizes, scale) in [
                ([1, 64, 1], 14.3),
                ([1, 17, 4], 1.0),
                ([7, 100, 1], 100.0),
                ([7, 100, 4], 14.3),
                ([33, 64, 4], 100.0),
                ([127, 64, 1], 14.3),
                ([129, 100, 1], 1.0),
            ] {
                Pairs::new(loss, sizes, scale).check(&device, t);
            }
        }
    }
}

/// More images than a chunk has: dtext adds up, and the columns' sums.
#[test]
fn contrastive_losses_take_several_chunks() {
    for loss in [Loss::Clip, Loss::SigLip] {
        // 1024 rows of a chunk are 16 images.
        for t in TYPES {
            Pairs::new(loss, [33, 8, 64], 14.3).check(&emulated(0, false), t);
        }
    }
}

#[test]
fn contrastive_duplicates_share_probability_and_equal_queries_leave_it_to_the_first() {
    let device = emulated(0, false);
    for loss in [Loss::Clip, Loss::SigLip] {
        for groups in [1, 4] {
            let mut case = Pairs::new(loss, [33, 64, groups], 14.3);
            let (image, text) = (case.image[..groups * 64].to_vec(), case.text[..64].to_vec());
            for copy in [5, 32] {
                case.image[copy * groups * 64..][..groups * 64].copy_from_slice(&image);
                case.text[copy * 64..][..64].copy_from_slice(&text);
            }
            case.check(&device, DType::F32);
        }
        let mut case = Pairs::new(loss, [33, 64, 4], 14.3);
        for image in case.image.chunks_exact_mut(4 * 64) {
            let first = image[..64].to_vec();
            image.chunks_exact_mut(64).for_each(|query| query.copy_from_slice(&first));
        }
        case.check(&device, DType::F32);
        for queries in find(&case.run(&device, DType::BF16).unwrap(), "dimage").chunks_exact(4 * 64) {
            assert!(queries[..64].iter().any(|&d| d != 0.0) && queries[64..].iter().all(|&d| d == 0.0));
        }
    }
}

#[test]
fn contrastive_losses_do_not_depend_on_the_order_of_threads() {
    for loss in [Loss::Clip, Loss::SigLip] {
        for (t, sizes) in [(DType::F32, [33, 20, 1]), (DType::BF16, [33, 20, 4]), (DType::BF16, [32, 32, 1])] {
            let case = Pairs::new(loss, sizes, 14.3);
            let expected = case.run(&emulated(0, false), t).unwrap();
            for device in [emulated(1, false), emulated(7, false), emulated(0, true), emulated(1, true)] {
                assert!(case.run(&device, t).unwrap() == expected, "{loss:?} {t} {device:?}");
            }
        }
    }
}

#[test]
fn contrastive_losses_show_what_is_no_number() {
    let device = emulated(0, false);
    for loss in [Loss::Clip, Loss::SigLip] {
        let case = Pairs::new(loss, [33, 64, 4], 14.3);
        let (mut image, mut text) = (case.clone(), case);
        image.image[(7 * 4 + 2) * 64] = f64::NAN;
        text.text[9 * 64] = f64::NAN;
        for broken in [image, text] {
            assert!(find(&broken.run(&device, DType::F32).unwrap(), "loss")[0].is_nan());
        }
    }
}

#[test]
fn f64_is_refused() {
    let device = emulated(0, false);
    assert!(Linear::new([3, 4, 5], 0).run(&device, DType::F64, (true, true)).is_err());
    assert!(Pairs::new(Loss::Clip, [3, 4, 1], 1.0).run(&device, DType::F64).is_err());
    assert!(Pairs::new(Loss::SigLip, [3, 4, 1], 1.0).run(&device, DType::F64).is_err());
}

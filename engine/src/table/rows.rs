//! The rows: every op, its kernels and its cases.

mod grid;
mod layout;
mod losses;
mod pointwise;

pub use grid::grid;

use super::oracle::{self, Sight};
use super::{Array, Case, Row};
use crate::ops::{self, Attend};
use crate::{Activation, Device, Mask, Result, Tensor, Var};

/// Errors of a result that is one sum over a few dozen products: 1e-5 in f32 (2⁻²⁴ times √n and some room), 2⁻⁷ in
/// bf16, which rounds inputs of later steps and the result (2⁻⁹ each).
const PRODUCT: (f64, f64) = (1e-5, 8e-3);
/// Errors of results that pass through several roundings in bf16 on the way to a gradient.
const LOSS: (f64, f64) = (2e-5, 2e-2);

/// Of normalised rows: less than a warp of a GPU takes, several warps with whole vectors, more than a block takes at a time.
const WIDTHS: [usize; 3] = [37, 264, 4099];

const ACTIVATIONS: [Activation; 4] = [Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu, Activation::Silu];

/// A case from its parts.
fn case(
    name: impl Into<String>,
    inputs: Vec<Array>,
    tolerance: (f64, f64),
    run: impl Fn(&Device, &[Var]) -> Result<Var> + 'static,
    result: impl Fn(&[Array]) -> Array + 'static,
    gradients: impl Fn(&[Array], &Array) -> Vec<Array> + 'static,
) -> Case {
    Case {
        name: name.into(),
        inputs,
        run: Box::new(run),
        result: Box::new(result),
        gradients: Some(Box::new(gradients)),
        tolerance,
    }
}

/// Normal arrays of these shapes, each from its own seed.
fn normal<const N: usize>(shapes: [&[usize]; N]) -> Vec<Array> {
    shapes.iter().enumerate().map(|(i, s)| Array::random(*s, 1.0, i as u64 + 1)).collect()
}

/// Rows of unit length.
fn unit(shape: &[usize], seed: u64) -> Array {
    oracle::l2_normalize(&Array::random(shape, 1.0, seed))
}

fn ints(device: &Device, values: &[i32], shape: &[usize]) -> Result<Tensor> {
    Tensor::from_slice(device, values, shape)
}

/// The whole table.
pub fn rows() -> Vec<Row> {
    let row = |op, kernels, cases| Row { op, kernels, cases };
    vec![
        row("linear", &["gemm", "activation", "reduce"], linear()),
        row("matmul", &["gemm"], matmul()),
        row("attention", &["attention"], attention()),
        row("layer_norm", &["norm"], WIDTHS.into_iter().flat_map(layer_norm).collect()),
        row("rms_norm", &["norm"], WIDTHS.into_iter().flat_map(rms_norm).collect()),
        row("l2_normalize", &["norm"], l2_normalize()),
        row("rotary", &["rotary"], rotary()),
        row("embedding", &["embedding"], embedding()),
        row("cross_entropy", &["loss", "elementwise"], losses::cross_entropy()),
        row("clip_loss", &["contrastive", "elementwise"], losses::clip_loss()),
        row("siglip_loss", &["contrastive", "elementwise"], losses::siglip_loss()),
        row("patch_embed", &["patch", "gemm"], patch_embed()),
        row("dropout", &["dropout"], pointwise::dropout()),
        row("activate", &["activation"], pointwise::activate()),
        row("silu_mul", &["activation"], pointwise::silu_mul()),
        row("add", &["elementwise"], pointwise::add()),
        row("mul", &["elementwise"], pointwise::mul()),
        row("scale", &["elementwise"], pointwise::scale()),
        row("add_broadcast", &["elementwise", "reduce"], pointwise::add_broadcast()),
        row("sum", &["reduce"], pointwise::sum()),
        row("repeat", &["reduce"], layout::repeat()),
        row("concat", &["copy"], layout::concat()),
        row("slice", &["copy"], layout::slice()),
        row("reshape", &[], layout::reshape()),
        row("cast", &["elementwise"], layout::cast()),
        row("recompute", &[], Vec::new()),
    ]
}

/// A layer with a bias over rows of this shape, `outputs` wide.
fn linear_bias(name: impl Into<String>, rows: &[usize], outputs: usize) -> Case {
    let width = rows[rows.len() - 1];
    case(
        name,
        normal([rows, &[outputs, width], &[outputs]]),
        PRODUCT,
        |_, v| ops::linear(&v[0], &v[1], Some(&v[2])),
        |a| oracle::linear(&a[0], &a[1], Some(&a[2])),
        |a, dy| oracle::linear_backward(&a[0], &a[1], dy),
    )
}

fn linear() -> Vec<Case> {
    let mut cases = vec![
        linear_bias("linear/bias", &[2, 9, 13], 7),
        // Sums that a GPU splits, in whole vectors and not.
        linear_bias("linear/sums of 1100", &[5, 1100], 7),
        linear_bias("linear/sums of 1088", &[40, 1088], 12),
        // More than eight tiles of rows, which blocks go through in groups, and two of columns.
        linear_bias("linear/580 rows", &[580, 20], 70),
        case(
            "linear/plain",
            normal([&[33, 40], &[70, 40]]),
            PRODUCT,
            |_, v| ops::linear(&v[0], &v[1], None),
            |a| oracle::linear(&a[0], &a[1], None),
            |a, dy| oracle::linear_backward(&a[0], &a[1], dy)[..2].to_vec(),
        ),
        case(
            "linear/residual",
            normal([&[2, 9, 13], &[7, 13], &[7], &[2, 9, 7]]),
            PRODUCT,
            |_, v| ops::linear_residual(&v[0], &v[1], Some(&v[2]), &v[3]),
            |a| oracle::linear(&a[0], &a[1], Some(&a[2])).zip(&a[3], |x, r| x + r),
            |a, dy| [oracle::linear_backward(&a[0], &a[1], dy), vec![dy.clone()]].concat(),
        ),
    ];
    cases.extend(ACTIVATIONS.map(|act| {
        case(
            format!("linear/{act:?}"),
            // Small weights keep GELU's argument where the oracle's series for erf converges quickly.
            vec![Array::random([5, 13], 1.0, 1), Array::random([6, 13], 0.3, 2), Array::random([6], 0.3, 3)],
            LOSS,
            move |_, v| ops::linear_act(&v[0], &v[1], Some(&v[2]), act),
            move |a| oracle::linear(&a[0], &a[1], Some(&a[2])).map(|x| oracle::activation(x, act)),
            move |a, dy| {
                let pre = oracle::linear(&a[0], &a[1], Some(&a[2]));
                let dpre = pre.zip(dy, |x, d| oracle::slope(x, act) * d);
                oracle::linear_backward(&a[0], &a[1], &dpre)
            },
        )
    }));
    cases
}

/// A batch of products; `transposed` says that b is stored as (n, k).
fn product([batch, m, n, k]: [usize; 4], transposed: bool) -> Case {
    let b = if transposed { [batch, n, k] } else { [batch, k, n] };
    case(
        format!("matmul/{batch} of {m}×{n}×{k}, transposed {transposed}"),
        normal([&[batch, m, k], &b]),
        PRODUCT,
        move |_, v| ops::matmul(&v[0], &v[1], transposed),
        move |a| oracle::matmul(&a[0], &a[1], transposed),
        move |a, dy| oracle::matmul_backward(&a[0], &a[1], transposed, dy),
    )
}

/// Small ones; sums that a GPU splits, in a batch; so many that a GPU takes its large tiles, in whole vectors and not.
fn matmul() -> Vec<Case> {
    vec![
        product([3, 5, 6, 7], false),
        product([3, 5, 6, 7], true),
        product([2, 5, 6, 1030], false),
        product([132, 33, 3, 5], true),
        product([66, 136, 72, 8], false),
    ]
}

/// Attention over q, k and v of these shapes, each query seeing the keys that `sight` allows.
fn attend(name: &str, shapes: [&[usize]; 3], sight: Sight) -> Case {
    let (run, result, gradients) = (sight.clone(), sight.clone(), sight);
    case(
        format!("attention/{name}"),
        normal(shapes),
        LOSS,
        move |device, v| ops::attention(&v[0], &v[1], &v[2], settings(device, &run, &v[1])?),
        move |a| oracle::attention(&a[0], &a[1], &a[2], &result),
        move |a, dy| oracle::attention_backward([&a[0], &a[1], &a[2]], &gradients, dy),
    )
}

/// What `sight` says, on a device.
fn settings(device: &Device, sight: &Sight, k: &Var) -> Result<Attend> {
    let (batch, keys) = (k.shape()[0], k.shape()[1]);
    let tensor = |values: &Option<Vec<i32>>, shape: &[usize]| {
        let tensor = values.as_ref().map(|x| ints(device, x, shape));
        tensor.transpose()
    };
    Ok(Attend {
        mask: sight.mask,
        q_lens: tensor(&sight.q_lens, &[batch])?,
        k_lens: tensor(&sight.k_lens, &[batch])?,
        segments: tensor(&sight.segments, &[batch, keys])?,
        dropout: sight.dropout,
        ..Attend::default()
    })
}

/// The weights over several tiles of queries and keys: an op without a derivative.
fn attention_weights() -> Case {
    let (sight, seen) = (masked(Mask::Causal), masked(Mask::Causal));
    Case {
        gradients: None,
        ..case(
            "attention/weights",
            normal([&[1, 70, 2, 8], &[1, 130, 1, 8]]),
            LOSS,
            move |device, v| ops::attention_weights(&v[0], &v[1], settings(device, &sight, &v[1])?),
            move |a| oracle::attention_weights(&a[0], &a[1], &seen),
            |_, _| Vec::new(),
        )
    }
}

fn masked(mask: Mask) -> Sight {
    Sight { mask, ..Sight::default() }
}

fn attention() -> Vec<Case> {
    let square: [&[usize]; 3] = [&[2, 6, 4, 5], &[2, 6, 2, 5], &[2, 6, 2, 5]];
    let cross: [&[usize]; 3] = [&[2, 3, 2, 8], &[2, 7, 2, 8], &[2, 7, 2, 8]];
    let mut cases = attention_over_tiles();
    cases.extend([
        attention_weights(),
        attend("full, grouped queries", square, masked(Mask::Full)),
        attend("causal", square, masked(Mask::Causal)),
        attend("causal, more keys", cross, masked(Mask::Causal)),
        attend("prefix", square, masked(Mask::PrefixCausal(3))),
        attend("window", square, masked(Mask::Window(3))),
        attend("window, more keys", cross, masked(Mask::Window(2))),
        attend("cross", cross, masked(Mask::Full)),
        attend(
            "lengths, one empty",
            cross,
            Sight { q_lens: Some(vec![3, 2]), k_lens: Some(vec![5, 0]), ..masked(Mask::Full) },
        ),
        attend(
            "segments",
            square,
            Sight { segments: Some(vec![0, 0, 1, 1, 2, 2, 0, 1, 1, 2, -1, -1]), ..masked(Mask::Causal) },
        ),
    ]);
    cases
}

/// More queries and keys than a GPU takes at a time, under every mask.
fn attention_over_tiles() -> Vec<Case> {
    let more_keys: [&[usize]; 3] = [&[1, 70, 2, 8], &[1, 130, 1, 8], &[1, 130, 1, 8]];
    let square: [&[usize]; 3] = [&[1, 150, 1, 8]; 3];
    // Rows of a head that do not start at whole vectors.
    let odd: [&[usize]; 3] = [&[2, 70, 2, 37], &[2, 130, 1, 37], &[2, 130, 1, 37]];
    // The last two tokens are padding, and see nothing.
    let documents = (0..150).map(|i| [1, 2, 4, 3, -1][i / 37]).collect();
    let lengths = Sight { q_lens: Some(vec![70, 66]), k_lens: Some(vec![129, 0]), ..masked(Mask::Full) };
    let segments = Sight { segments: Some(documents), ..masked(Mask::Causal) };
    let dropout = Sight { dropout: (0.3, 7), ..masked(Mask::Causal) };
    vec![
        attend("several tiles", more_keys, masked(Mask::Causal)),
        attend("prefix over tiles", square, masked(Mask::PrefixCausal(70))),
        attend("window over tiles", square, masked(Mask::Window(40))),
        attend("segments over tiles", square, segments),
        attend("dropout over tiles", more_keys, dropout),
        attend("lengths over tiles, odd widths", odd, lengths),
        large_scores(attend("large scores", more_keys, masked(Mask::Full))),
    ]
}

/// Scores of some hundred, whose exponentials are beyond f32: in f32 they err by 2⁻²⁴ of that, and so do the weights.
fn large_scores(case: Case) -> Case {
    let larger = |input: &Array| input.map(|x| 12.0 * x);
    Case {
        inputs: vec![larger(&case.inputs[0]), larger(&case.inputs[1]), case.inputs[2].clone()],
        tolerance: (5e-4, LOSS.1),
        ..case
    }
}

fn layer_norm(dim: usize) -> Vec<Case> {
    let run = |_: &Device, v: &[Var]| ops::layer_norm(&v[0], &v[1], &v[2], 1e-5);
    vec![case(
        format!("layer_norm/{dim}"),
        normal([&[2, 3, dim], &[dim], &[dim]]),
        LOSS,
        run,
        |a| oracle::layer_norm(&a[0], &a[1], &a[2], 1e-5),
        |a, dy| oracle::norm_backward(&a[0], &a[1], 1e-5, true, dy),
    )]
}

fn rms_norm(dim: usize) -> Vec<Case> {
    let run = |_: &Device, v: &[Var]| ops::rms_norm(&v[0], &v[1], 1e-5);
    let name = format!("rms_norm/{dim}");
    vec![case(
        name,
        normal([&[2, 3, dim], &[dim]]),
        LOSS,
        run,
        |a| oracle::rms_norm(&a[0], &a[1], 1e-5),
        |a, dy| oracle::norm_backward(&a[0], &a[1], 1e-5, false, dy),
    )]
}

fn l2_normalize() -> Vec<Case> {
    WIDTHS
        .map(|dim| {
            case(
                format!("l2_normalize/{dim}"),
                normal([&[5, dim]]),
                LOSS,
                |_, v| ops::l2_normalize(&v[0], 1e-12),
                |a| oracle::l2_normalize(&a[0]),
                |a, dy| oracle::l2_normalize_backward(&a[0], dy),
            )
        })
        .into()
}

fn rotary() -> Vec<Case> {
    const POSITIONS: [i32; 6] = [0, 1, 2, 7, 0, 30];
    const INV_FREQ: [f64; 8] = [1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.01];
    let one = |half: usize| {
        let inv_freq = &INV_FREQ[..half];
        case(
            format!("rotary/{half} pairs"),
            normal([&[2, 3, 2, 2 * half]]),
            PRODUCT,
            move |device, v| {
                let inv_freq = Tensor::from_slice(device, inv_freq, [half])?.cast(v[0].dtype().accumulator())?;
                ops::rotary(&v[0], &ints(device, &POSITIONS, &[2, 3])?, &inv_freq)
            },
            move |a| oracle::rotary(&a[0], &POSITIONS, inv_freq),
            move |_, dy| vec![oracle::rotary(dy, &POSITIONS, &INV_FREQ.map(|f| -f)[..half])],
        )
    };
    [5, 8].map(one).into()
}

fn embedding() -> Vec<Case> {
    // As entries of the table and the numbers looked up; more numbers and columns than a block of a GPU takes at a time.
    let one = |name: &str, table: &[usize], ids: Vec<i32>| {
        let (entry, run, result) = (table[1..].to_vec(), ids.clone(), ids.clone());
        case(
            format!("embedding/{name}"),
            normal([table]),
            PRODUCT,
            move |device, v| ops::embedding(&v[0], &ints(device, &run, &[run.len()])?),
            move |a| Array::new(&[&[result.len()], &entry[..]].concat()[..], oracle::gather(&a[0], &result)),
            move |a, dy| oracle::gather_backward(&a[0], &ids, dy),
        )
    };
    let few = || vec![3, 0, 3, 4, 1, 3];
    vec![
        one("rows, one thrice and one never", &[5, 11], few()),
        one("entries of a batch", &[5, 2, 3], few()),
        one("many and wide", &[5, 264], (0..300).map(|i| i * i % 5).collect()),
        // More entries than a block counts.
        one("a long table", &[600, 3], (0..90).map(|i| i * i % 600).collect()),
    ]
}

fn patch_embed() -> Vec<Case> {
    [0, 2]
        .map(|margin| {
            let window = 2 + 2 * margin;
            case(
                format!("patch_embed/margin {margin}"),
                normal([&[2, 3, 4, 6], &[5, 3 * window * window], &[5]]),
                PRODUCT,
                move |_, v| ops::patch_embed(&v[0], &v[1], Some(&v[2]), 2, margin),
                move |a| oracle::linear(&oracle::unfold(&a[0], 2, margin), &a[1], Some(&a[2])),
                move |a, dy| {
                    let windows = oracle::unfold(&a[0], 2, margin);
                    let mut gradients = oracle::linear_backward(&windows, &a[1], dy);
                    gradients[0] = oracle::fold(a[0].shape, 2, margin, &gradients[0]);
                    gradients
                },
            )
        })
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, Error};

    #[test]
    fn a_wrong_derivative_is_found() -> Result<()> {
        // Detaching one use of x halves the derivative of x².
        let wrong = case(
            "square",
            normal([&[5]]),
            PRODUCT,
            |_, v| ops::mul(&v[0], &v[0].detach()),
            |a| a[0].map(|x| x * x),
            |a, dy| vec![a[0].zip(dy, |x, d| 2.0 * x * d)],
        );
        assert!(!super::super::follows_oracle(&wrong, &Device::cpu(), DType::F64)?.is_empty());
        // And one of the oracle's own.
        let wrong = case(
            "square",
            normal([&[5]]),
            PRODUCT,
            |_, v| ops::mul(&v[0], &v[0]),
            |a| a[0].map(|x| x * x),
            |a, dy| vec![a[0].zip(dy, |x, d| x * d)],
        );
        assert!(!super::super::finite_differences(&wrong).is_empty());
        Ok(())
    }

    #[test]
    fn a_wrong_result_is_found() -> Result<()> {
        let wrong = case(
            "double",
            normal([&[5]]),
            PRODUCT,
            |_, v| ops::scale(&v[0], 2.001),
            |a| a[0].map(|x| 2.0 * x),
            |_, dy| vec![dy.map(|d| 2.0 * d)],
        );
        assert!(!super::super::follows_oracle(&wrong, &Device::cpu(), DType::F32)?.is_empty());
        Ok(())
    }

    #[test]
    fn an_op_without_derivative_is_an_error_that_names_it() -> Result<()> {
        let tape = crate::Tape::new();
        let q = tape.leaf(Tensor::zeros(&Device::cpu(), DType::F32, [1, 2, 1, 4])?);
        let weights = ops::attention_weights(&q, &q, Attend::full())?;
        let error = tape.gradients(&ops::sum(&weights)?).err().expect("an error");
        assert!(matches!(error, Error::NoDerivative { op: "attention_weights" }), "{error}");
        Ok(())
    }
}

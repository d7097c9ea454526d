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

const ACTIVATIONS: [Activation; 4] = [
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::QuickGelu,
    Activation::Silu,
];

/// A case from its parts.
fn case(
    name: impl Into<String>,
    inputs: Vec<Array>,
    tolerance: (f64, f64),
    run: impl Fn(&Device, &[Var]) -> Result<Var> + 'static,
    oracle: impl Fn(&[Array]) -> Array + 'static,
) -> Case {
    Case {
        name: name.into(),
        inputs,
        run: Box::new(run),
        oracle: Box::new(oracle),
        tolerance,
    }
}

/// Normal arrays of these shapes, each from its own seed.
fn normal<const N: usize>(shapes: [&[usize]; N]) -> Vec<Array> {
    shapes
        .iter()
        .enumerate()
        .map(|(i, s)| Array::random(*s, 1.0, i as u64 + 1))
        .collect()
}

/// Rows of unit length.
fn unit(shape: &[usize], seed: u64) -> Array {
    oracle::by_row(&Array::random(shape, 1.0, seed), |row| {
        let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        row.iter().map(|x| x / norm).collect()
    })
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
        row("layer_norm", &["norm"], layer_norm(37)),
        row("rms_norm", &["norm"], rms_norm(37)),
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

fn linear() -> Vec<Case> {
    let inputs = || normal([&[2, 9, 13], &[7, 13], &[7]]);
    let mut cases = vec![
        case(
            "linear/bias",
            inputs(),
            PRODUCT,
            |_, v| ops::linear(&v[0], &v[1], Some(&v[2])),
            |a| oracle::linear(&a[0], &a[1], Some(&a[2])),
        ),
        case(
            "linear/plain",
            normal([&[33, 40], &[70, 40]]),
            PRODUCT,
            |_, v| ops::linear(&v[0], &v[1], None),
            |a| oracle::linear(&a[0], &a[1], None),
        ),
        case(
            "linear/residual",
            normal([&[2, 9, 13], &[7, 13], &[7], &[2, 9, 7]]),
            PRODUCT,
            |_, v| ops::linear_residual(&v[0], &v[1], Some(&v[2]), &v[3]),
            |a| oracle::linear(&a[0], &a[1], Some(&a[2])).zip(&a[3], |x, r| x + r),
        ),
    ];
    cases.extend(ACTIVATIONS.map(|act| {
        case(
            format!("linear/{act:?}"),
            // Small weights keep GELU's argument where the oracle's series for erf converges quickly.
            vec![
                Array::random([5, 13], 1.0, 1),
                Array::random([6, 13], 0.3, 2),
                Array::random([6], 0.3, 3),
            ],
            LOSS,
            move |_, v| ops::linear_act(&v[0], &v[1], Some(&v[2]), act),
            move |a| oracle::linear(&a[0], &a[1], Some(&a[2])).map(|x| oracle::activation(x, act)),
        )
    }));
    cases
}

fn matmul() -> Vec<Case> {
    vec![
        case(
            "matmul/nn",
            normal([&[3, 5, 7], &[3, 7, 6]]),
            PRODUCT,
            |_, v| ops::matmul(&v[0], &v[1], false),
            |a| oracle::matmul(&a[0], &a[1], false),
        ),
        case(
            "matmul/nt",
            normal([&[3, 5, 7], &[3, 6, 7]]),
            PRODUCT,
            |_, v| ops::matmul(&v[0], &v[1], true),
            |a| oracle::matmul(&a[0], &a[1], true),
        ),
    ]
}

/// Attention over q, k and v of these shapes, each query seeing the keys that `sight` allows.
fn attend(name: &str, shapes: [&[usize]; 3], sight: Sight) -> Case {
    let (batch, keys, seen) = (shapes[0][0], shapes[1][1], sight.clone());
    case(
        format!("attention/{name}"),
        normal(shapes),
        LOSS,
        move |device, v| {
            let tensor = |values: &Option<Vec<i32>>, shape: &[usize]| {
                let tensor = values.as_ref().map(|x| ints(device, x, shape));
                tensor.transpose()
            };
            let attend = Attend {
                mask: sight.mask,
                q_lens: tensor(&sight.q_lens, &[batch])?,
                k_lens: tensor(&sight.k_lens, &[batch])?,
                segments: tensor(&sight.segments, &[batch, keys])?,
                ..Attend::default()
            };
            ops::attention(&v[0], &v[1], &v[2], attend)
        },
        move |a| oracle::attention(&a[0], &a[1], &a[2], &seen),
    )
}

fn attention() -> Vec<Case> {
    let square: [&[usize]; 3] = [&[2, 6, 4, 5], &[2, 6, 2, 5], &[2, 6, 2, 5]];
    let cross: [&[usize]; 3] = [&[2, 3, 2, 8], &[2, 7, 2, 8], &[2, 7, 2, 8]];
    let masked = |mask| Sight {
        mask,
        ..Sight::default()
    };
    vec![
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
            Sight {
                q_lens: Some(vec![3, 2]),
                k_lens: Some(vec![5, 0]),
                ..masked(Mask::Full)
            },
        ),
        attend(
            "segments",
            square,
            Sight {
                segments: Some(vec![0, 0, 1, 1, 2, 2, 0, 1, 1, 2, -1, -1]),
                ..masked(Mask::Causal)
            },
        ),
    ]
}

fn layer_norm(dim: usize) -> Vec<Case> {
    let run = |_: &Device, v: &[Var]| ops::layer_norm(&v[0], &v[1], &v[2], 1e-5);
    vec![case(
        format!("layer_norm/{dim}"),
        normal([&[2, 3, dim], &[dim], &[dim]]),
        LOSS,
        run,
        |a| oracle::layer_norm(&a[0], &a[1], &a[2], 1e-5),
    )]
}

fn rms_norm(dim: usize) -> Vec<Case> {
    let run = |_: &Device, v: &[Var]| ops::rms_norm(&v[0], &v[1], 1e-5);
    let name = format!("rms_norm/{dim}");
    vec![case(name, normal([&[2, 3, dim], &[dim]]), LOSS, run, |a| {
        oracle::rms_norm(&a[0], &a[1], 1e-5)
    })]
}

fn l2_normalize() -> Vec<Case> {
    vec![case(
        "l2_normalize",
        normal([&[5, 19]]),
        LOSS,
        |_, v| ops::l2_normalize(&v[0], 1e-12),
        |a| {
            oracle::by_row(&a[0], |row| {
                let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
                row.iter().map(|x| x / norm).collect()
            })
        },
    )]
}

fn rotary() -> Vec<Case> {
    const POSITIONS: [i32; 6] = [0, 1, 2, 7, 0, 30];
    const INV_FREQ: [f64; 5] = [1.0, 0.3, 0.1, 0.03, 0.01];
    let run = |device: &Device, v: &[Var]| {
        let inv_freq = Tensor::from_slice(device, &INV_FREQ, [5])?.cast(v[0].dtype().accumulator())?;
        ops::rotary(&v[0], &ints(device, &POSITIONS, &[2, 3])?, &inv_freq)
    };
    vec![case("rotary", normal([&[2, 3, 2, 10]]), PRODUCT, run, |a| {
        oracle::rotary(&a[0], &POSITIONS, &INV_FREQ)
    })]
}

fn embedding() -> Vec<Case> {
    const IDS: [i32; 6] = [3, 0, 3, 4, 1, 3];
    let gather = |a: &[Array], entry: usize| -> Vec<f64> {
        IDS.iter()
            .flat_map(|id| a[0].data[*id as usize * entry..][..entry].to_vec())
            .collect()
    };
    vec![
        case(
            "embedding/rows, one twice and one never",
            normal([&[5, 11]]),
            PRODUCT,
            |device, v| ops::embedding(&v[0], &ints(device, &IDS, &[2, 3])?),
            move |a| Array::new([2, 3, 11], gather(a, 11)),
        ),
        case(
            "embedding/entries of a batch",
            normal([&[5, 2, 3]]),
            PRODUCT,
            |device, v| ops::embedding(&v[0], &ints(device, &IDS, &[6])?),
            move |a| Array::new([6, 2, 3], gather(a, 6)),
        ),
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
        );
        assert!(!super::super::finite_differences(&wrong)?.is_empty());
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
        assert!(
            matches!(
                error,
                Error::NoDerivative {
                    op: "attention_weights"
                }
            ),
            "{error}"
        );
        Ok(())
    }
}

//! The shapes models have, and awkward ones next to them: too many for every run of the tests, meant for a GPU.

use super::{PRODUCT, attend, case, ints, layer_norm, linear_bias, losses, normal, product, rms_norm};
use crate::table::oracle::{self, Sight};
use crate::table::{Case, Row};
use crate::{Device, Mask, Tensor, Var, ops};

/// Rows of ops whose kernels take different paths for different shapes.
pub fn grid() -> Vec<Row> {
    let row = |op, kernels, cases| Row { op, kernels, cases };
    vec![
        row("linear", &["gemm"], linear()),
        row("matmul", &["gemm"], matmul()),
        row("attention", &["attention"], attention()),
        row("layer_norm", &["norm"], WIDTHS.into_iter().flat_map(layer_norm).collect()),
        row("rms_norm", &["norm"], WIDTHS.into_iter().flat_map(rms_norm).collect()),
        row("rotary", &["rotary"], rotary()),
        row("cross_entropy", &["loss"], losses::cross_entropy_grid()),
        row("clip_loss", &["contrastive"], losses::clip_grid()),
        row("siglip_loss", &["contrastive"], losses::siglip_grid()),
    ]
}

/// Of normalised rows.
const WIDTHS: [usize; 8] = [41, 123, 192, 1023, 1500, 2560, 3000, 4096];

fn linear() -> Vec<Case> {
    const SHAPES: [(usize, usize, usize); 13] = [
        (1, 1, 8),
        (1, 130, 1024),
        (17, 33, 9),
        (63, 65, 64),
        (64, 64, 1000),
        (127, 129, 31),
        (129, 127, 128),
        (130, 1, 257),
        (257, 1024, 1024),
        (514, 1024, 4096),
        (257, 3072, 1024),
        (257, 4096, 1024),
        (1028, 1024, 1024),
    ];
    let one = |(m, n, k)| linear_bias(format!("linear/{m} rows, {k} to {n}"), &[m, k], n);
    SHAPES.map(one).into()
}

fn matmul() -> Vec<Case> {
    const SHAPES: [[usize; 4]; 4] = [[3, 65, 63, 33], [2, 128, 128, 128], [5, 1, 130, 8], [2, 257, 64, 257]];
    let one = |shape| [false, true].map(|transposed| product(shape, transposed));
    SHAPES.into_iter().flat_map(one).collect()
}

/// Every head dimension with every pair of lengths; heads, masks and lengths of batch entries take turns.
fn attention() -> Vec<Case> {
    const DIMS: [usize; 9] = [32, 40, 59, 64, 72, 80, 96, 111, 128];
    const LENGTHS: [(usize, usize); 14] = [
        (1, 1),
        (1, 239),
        (239, 1),
        (3, 799),
        (799, 3),
        (64, 128),
        (113, 203),
        (128, 217),
        (108, 256),
        (257, 257),
        (577, 577),
        (32, 257),
        (1023, 1024),
        (2048, 2048),
    ];
    /// From here on only the commonest dimensions: the plain loops take seconds.
    const LONG: usize = 1000;
    const HEADS: [(usize, usize); 3] = [(2, 2), (4, 2), (3, 1)];
    let mut cases = Vec::new();
    for dim in DIMS {
        for (q_len, k_len) in LENGTHS {
            if q_len >= LONG && !matches!(dim, 64 | 128) {
                continue;
            }
            let turn = cases.len();
            let (q_heads, kv_heads) = HEADS[turn % HEADS.len()];
            let mask = [Mask::Full, Mask::Causal][turn % 2];
            let k_lens = (turn % 4 == 1).then(|| vec![k_len as i32, 0]);
            let (q, kv) = ([2, q_len, q_heads, dim], [2, k_len, kv_heads, dim]);
            let name = format!(
                "{q_len} queries, {k_len} keys, {q_heads}/{kv_heads} heads of {dim}, {mask:?}, lengths {k_lens:?}"
            );
            let sight = Sight { mask, k_lens, ..Sight::default() };
            cases.push(attend(&name, [&q, &kv, &kv], sight));
        }
    }
    cases
}

fn rotary() -> Vec<Case> {
    const SHAPES: [[usize; 4]; 2] = [[3, 423, 7, 92], [1, 2048, 8, 128]];
    let one = |shape: [usize; 4]| {
        let [batch, tokens, _, dim] = shape;
        let positions: Vec<i32> = (0..batch * tokens).map(|i| (i % tokens) as i32).collect();
        let inv_freq: Vec<f64> = (0..dim / 2).map(|i| 1e4f64.powf(-2.0 * i as f64 / dim as f64)).collect();
        // In f32 the angle at position 2,000 errs by 1e-4.
        let tolerance = (2e-4, PRODUCT.1);
        let (at, by) = (positions.clone(), inv_freq.clone());
        let (back_at, back_by) = (positions.clone(), inv_freq.iter().map(|f| -f).collect::<Vec<_>>());
        let run = move |device: &Device, v: &[Var]| {
            let inv_freq = Tensor::from_slice(device, &by, [by.len()])?.cast(v[0].dtype().accumulator())?;
            ops::rotary(&v[0], &ints(device, &at, &[batch, tokens])?, &inv_freq)
        };
        case(
            format!("rotary/{shape:?}"),
            normal([&shape]),
            tolerance,
            run,
            move |a| oracle::rotary(&a[0], &positions, &inv_freq),
            move |_, dy| vec![oracle::rotary(dy, &back_at, &back_by)],
        )
    };
    SHAPES.map(one).into()
}

//! A NaN that goes in comes out: no kernel that exponentiates turns it into a number that looks sound.

mod common;

use common::{Array, TYPES, for_each_isa, numbers};
use kernels::DType;
use kernels::activation::{Activation, activate, activate_backward, silu_mul, silu_mul_backward};
use kernels::attention::{self, Attention, Mask, Saved, attention, attention_backward, attention_weights};
use kernels::contrastive::{
    Contrastive, Features, Gradients, clip_loss, clip_loss_backward, siglip_loss, siglip_loss_backward,
};
use kernels::loss::{CrossEntropy, Outputs, linear_cross_entropy};

/// Queries and keys: several registers of any width, and a rest.
const TOKENS: usize = 37;
/// Width of rows in attention and losses.
const DIM: usize = 5;

/// `n` numbers of which the one at `broken` is NaN.
fn with_nan(dtype: DType, n: usize, seed: u64, broken: usize) -> Array {
    let mut values = numbers(n, seed);
    values[broken] = f64::NAN;
    Array::new(dtype, &values)
}

/// Requires rows of `dim` elements to be all NaN where `broken`, else all finite.
fn broken_rows(what: &str, array: &Array, dim: usize, broken: impl Fn(usize) -> bool) {
    for (i, x) in array.values().iter().enumerate() {
        let right = if broken(i / dim) { x.is_nan() } else { x.is_finite() };
        assert!(right, "{what}: row {} has {x} at {}", i / dim, i % dim);
    }
}

fn activations(dtype: DType) {
    for broken in [0, 20, TOKENS - 1] {
        let (x, dy) = (with_nan(dtype, TOKENS, 1, broken), Array::new(dtype, &numbers(TOKENS, 2)));
        let [mut y, mut dx] = [(); 2].map(|()| Array::on(&kernels::Device::cpu(), dtype, TOKENS));
        for act in [Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu, Activation::Silu] {
            activate(x.view(), &mut y.view_mut(), act).unwrap();
            activate_backward(x.view(), dy.view(), &mut dx.view_mut(), act).unwrap();
            broken_rows(&format!("{act:?} in {dtype}"), &y, 1, |i| i == broken);
            broken_rows(&format!("derivative of {act:?} in {dtype}"), &dx, 1, |i| i == broken);
        }
        silu_mul(x.view(), dy.view(), &mut y.view_mut()).unwrap();
        broken_rows(&format!("silu_mul in {dtype}"), &y, 1, |i| i == broken);
        silu_mul_backward(x.view(), dy.view(), dy.view(), &mut dx.view_mut(), &mut y.view_mut()).unwrap();
        broken_rows(&format!("dgate in {dtype}"), &dx, 1, |i| i == broken);
        broken_rows(&format!("dup in {dtype}"), &y, 1, |i| i == broken);
    }
}

/// One head, with a NaN in one query or in one key.
fn attends(dtype: DType, mask: Mask, in_keys: bool, broken: usize) {
    let p = Attention {
        batch: 1,
        q_len: TOKENS,
        k_len: TOKENS,
        q_heads: 1,
        kv_heads: 1,
        head_dim: DIM,
        scale: 0.5,
        mask,
        kv_stride: TOKENS,
        q_lens: None,
        k_lens: None,
        segments: None,
        dropout: 0.0,
        seed: 0,
    };
    let (n, acc) = (TOKENS * DIM, dtype.accumulator());
    let [mut q, mut k, v, dout] = [1, 2, 3, 4].map(|seed| Array::new(dtype, &numbers(n, seed)));
    *(if in_keys { &mut k } else { &mut q }) = with_nan(dtype, n, 5, broken * DIM + 2);
    let [mut out, mut dq, mut dk, mut dv] = [(); 4].map(|()| Array::out(dtype, n));
    let (mut lse, mut weights) = (Array::out(acc, TOKENS), Array::out(acc, TOKENS * TOKENS));
    attention(&p, q.view(), k.view(), v.view(), &mut out.view_mut(), &mut lse.view_mut()).unwrap();
    attention_weights(&p, q.view(), k.view(), lse.view(), &mut weights.view_mut()).unwrap();
    let [q, k, v, out_view, lse_view, dout] = [&q, &k, &v, &out, &lse, &dout].map(|array| array.view());
    let saved = Saved { q, k, v, out: out_view, lse: lse_view, dout };
    let gradients = attention::Gradients { dq: dq.view_mut(), dk: dk.view_mut(), dv: dv.view_mut() };
    attention_backward(&p, saved, gradients).unwrap();

    let what = |of: &str| format!("{of} in {dtype}, {mask:?}, NaN in keys: {in_keys}, at {broken}");
    let sees = |query: usize| {
        if in_keys { mask == Mask::Full || query >= broken } else { query == broken }
    };
    broken_rows(&what("out"), &out, DIM, sees);
    broken_rows(&what("lse"), &lse, 1, sees);
    for (query, row) in weights.values().chunks(TOKENS).enumerate() {
        let visible = if mask == Mask::Full { TOKENS } else { query + 1 };
        let right = |w: &f64| if sees(query) { w.is_nan() } else { w.is_finite() };
        assert!(row[..visible].iter().all(right), "{} {query}: {row:?}", what("weights of"));
    }
    // The keys that a broken query sees. A block's products may spread it further: zero times NaN.
    let reached = |key: usize| mask == Mask::Full || in_keys || key <= broken;
    let all_nan = |of: &str, gradient: &Array, reached: &dyn Fn(usize) -> bool| {
        let values = gradient.values();
        let right = (0..n).all(|i| values[i].is_nan() || !reached(i / DIM));
        assert!(right, "{}: {values:?}", what(of));
    };
    all_nan("dq", &dq, &sees);
    all_nan("dk", &dk, &reached);
    all_nan("dv", &dv, &reached);
}

/// A NaN in a row reaches that row's results, one in a class all rows; and either way the loss and both gradients.
fn cross_entropy(dtype: DType, in_class: bool, broken: usize) {
    let p = CrossEntropy { rows: 7, dim: DIM, vocab: TOKENS, ignore_index: -1 };
    let (rows, classes, acc) = (p.rows * DIM, p.vocab * DIM, dtype.accumulator());
    let [mut x, mut w] = [rows, classes].map(|n| Array::new(dtype, &numbers(n, n as u64)));
    match in_class {
        true => w = with_nan(dtype, classes, 1, broken * DIM),
        false => x = with_nan(dtype, rows, 1, broken * DIM),
    }
    let targets = Array::ids(&[0, 1, 2, 3, 4, 5, 6]);
    let [mut loss, mut losses, mut dw] = [1, p.rows, classes].map(|n| Array::out(acc, n));
    let (mut predictions, mut dx) = (Array::out(DType::I32, p.rows), Array::out(dtype, rows));
    let out = Outputs {
        loss: loss.view_mut(),
        losses: losses.view_mut(),
        predictions: predictions.view_mut(),
        dx: Some(dx.view_mut()),
        dw: Some(dw.view_mut()),
    };
    linear_cross_entropy(&p, x.view(), w.view(), targets.view(), out).unwrap();
    let what = |of: &str| format!("{of} in {dtype}, NaN in a class: {in_class}, at {broken}");
    let reached = |row: usize| in_class || row == broken;
    broken_rows(&what("loss"), &loss, 1, |_| true);
    broken_rows(&what("losses"), &losses, 1, reached);
    broken_rows(&what("dx"), &dx, DIM, reached);
    broken_rows(&what("dw"), &dw, DIM, |_| true);
}

/// A NaN in one image or text of a contrastive loss reaches the loss, and every gradient that it has a part in.
fn contrastive(dtype: DType, siglip: bool, in_text: bool, broken: usize) {
    let p = Contrastive { n: TOKENS, dim: DIM, groups: 1 };
    let (n, acc) = (TOKENS * DIM, dtype.accumulator());
    let [mut image, mut text] = [1, 2].map(|seed| Array::new(dtype, &numbers(n, seed)));
    *(if in_text { &mut text } else { &mut image }) = with_nan(dtype, n, 3, broken * DIM + 1);
    let (scale, bias) = (Array::new(acc, &[0.5]), Array::new(acc, &[-1.0]));
    let [mut loss, mut dscale, mut dbias] = [(); 3].map(|()| Array::out(acc, 1));
    let [mut row_lse, mut col_lse] = [(); 2].map(|()| Array::out(acc, TOKENS));
    let [mut dimage, mut dtext] = [(); 2].map(|()| Array::out(dtype, n));
    let f = Features { image: image.view(), text: text.view(), log_scale: scale.view() };
    let g = Gradients { dimage: dimage.view_mut(), dtext: dtext.view_mut(), dlog_scale: dscale.view_mut() };
    if siglip {
        siglip_loss(&p, f, bias.view(), &mut loss.view_mut()).unwrap();
        siglip_loss_backward(&p, f, bias.view(), g, &mut dbias.view_mut()).unwrap();
    } else {
        clip_loss(&p, f, &mut loss.view_mut(), &mut row_lse.view_mut(), &mut col_lse.view_mut()).unwrap();
        clip_loss_backward(&p, f, row_lse.view(), col_lse.view(), g).unwrap();
    }
    let what = |of: &str| format!("{of} in {dtype}, SigLIP: {siglip}, NaN in texts: {in_text}, at {broken}");
    broken_rows(&what("loss"), &loss, 1, |_| true);
    broken_rows(&what("dscale"), &dscale, 1, |_| true);
    // CLIP's rows meet in the columns' sums and columns in the rows'; SigLIP's scores stand alone, and a broken image
    // has a score, and with it a part in the gradient, with every text.
    let own = |row: usize, whose: bool| !siglip || whose || row == broken;
    broken_rows(&what("dimage"), &dimage, DIM, |row| own(row, in_text));
    broken_rows(&what("dtext"), &dtext, DIM, |row| own(row, !in_text));
}

#[test]
fn nan_comes_through_on_every_instruction_set() {
    for_each_isa(|| {
        for dtype in TYPES {
            activations(dtype);
            // The first and last lanes of registers, and the first query, which sees a single key.
            for broken in [0, 15, 16, TOKENS - 1] {
                for (mask, in_keys) in
                    [(Mask::Full, false), (Mask::Full, true), (Mask::Causal, false), (Mask::Causal, true)]
                {
                    attends(dtype, mask, in_keys, broken);
                }
                cross_entropy(dtype, true, broken);
                cross_entropy(dtype, false, broken % 7);
                for (siglip, in_text) in [(false, false), (false, true), (true, false), (true, true)] {
                    contrastive(dtype, siglip, in_text, broken);
                }
            }
        }
    });
}

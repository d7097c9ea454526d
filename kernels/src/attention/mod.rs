//! Scaled dot-product attention: `out = softmax(scale · q·kᵀ + mask) · v` per head, without storing the score matrix.
//!
//! `softmax` is kept as the log-sum-exp of each query's scores, from which the backward pass recomputes the
//! probabilities P tile by tile (Dao et al. 2022). With D = rowsum(dout ⊙ out):
//! `dv = Pᵀ·dout`, `dS = P ⊙ (dout·vᵀ − D)`, `dq = scale · dS·k`, `dk = scale · dSᵀ·q`.
//!
//! Fewer key heads than query heads is grouped-query attention: query head h reads key head h · `kv_heads` / `q_heads`.
//! A query that sees no key has output 0, log-sum-exp −∞ and no gradient.

pub(crate) mod cpu;
pub(crate) mod gpu;

use crate::dispatch::Call;
use crate::view::on_device;
use crate::{DType, Error, Kind, Result, View, ViewMut, profile};

/// Which keys a query sees, before lengths and segments narrow it further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mask {
    /// All of them.
    #[default]
    Full,
    /// Aligned at the bottom right: query i sees keys ≤ i + `k_len` − `q_len`.
    Causal,
    /// Queries before the prefix's end see the whole prefix, later ones see keys up to their own place.
    /// Needs `q_len` = `k_len`.
    PrefixCausal(usize),
    /// Causal, and of the keys only the last so many: query i sees keys > i + `k_len` − `q_len` − window (Beltagy et al. 2020).
    Window(usize),
}

/// The shape and options of an attention call.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// Sequences.
    pub batch: usize,
    /// Queries per sequence.
    pub q_len: usize,
    /// Keys per sequence.
    pub k_len: usize,
    /// Query heads, a multiple of `kv_heads`.
    pub q_heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Factor on the scores, usually 1/√`head_dim`.
    pub scale: f64,
    /// Which keys a query sees.
    pub mask: Mask,
    /// Tokens from one sequence to the next in k and v, ≥ `k_len`: the capacity of a key-value cache.
    pub kv_stride: usize,
    /// I32 `(batch)`: queries at or beyond the length give zeros.
    pub q_lens: Option<View<'a>>,
    /// I32 `(batch)`: keys at or beyond the length are not seen.
    pub k_lens: Option<View<'a>>,
    /// I32 `(batch, k_len)`: key j is visible to query i, whose own place is i + `k_len` − `q_len`, if its segment is 0 or
    /// that of the query's place. A negative segment is padding, seen by none. Needs `q_len` ≤ `k_len`.
    pub segments: Option<View<'a>>,
    /// Probability with which a softmax weight is dropped; the others are scaled by 1/(1−p).
    pub dropout: f64,
    /// Seed of the dropout mask, whose counter is the flat (batch, head, query, key) index.
    pub seed: u64,
}

impl Attention<'_> {
    fn q_size(&self) -> usize {
        self.batch * self.q_len * self.q_heads * self.head_dim
    }

    fn kv_size(&self) -> usize {
        self.batch * self.kv_stride * self.kv_heads * self.head_dim
    }

    fn rows(&self) -> usize {
        self.batch * self.q_heads * self.q_len
    }

    /// Floating-point operations of so many matrix products over the queries and the keys that they see, segments and
    /// lengths not considered.
    fn products(&self, count: f64) -> f64 {
        let (q, k) = (self.q_len as f64, self.k_len as f64);
        let pairs = match self.mask {
            Mask::Full => q * k,
            Mask::Causal | Mask::PrefixCausal(_) => q * k - q.min(k) * (q.min(k) - 1.0) / 2.0,
            Mask::Window(window) => q * k.min(window as f64),
        };
        count * 2.0 * (self.batch * self.q_heads * self.head_dim) as f64 * pairs
    }

    fn check(&self, op: &'static str) -> Result<()> {
        let ensure = |holds: bool, message: &dyn Fn() -> String| match holds {
            true => Ok(()),
            false => Err(Error::Value { op, message: message() }),
        };
        ensure(self.head_dim > 0, &|| "heads have no width".to_owned())?;
        let shared = self.kv_heads > 0 && self.q_heads > 0 && self.q_heads.is_multiple_of(self.kv_heads);
        ensure(shared, &|| format!("{} query heads do not share {} key heads evenly", self.q_heads, self.kv_heads))?;
        ensure(self.kv_stride >= self.k_len, &|| {
            format!("{} keys do not fit a cache of {} tokens", self.k_len, self.kv_stride)
        })?;
        ensure((0.0..1.0).contains(&self.dropout), &|| format!("dropout {} is not in 0..1", self.dropout))?;
        let square = !matches!(self.mask, Mask::PrefixCausal(_)) || self.q_len == self.k_len;
        ensure(square, &|| {
            format!("a prefix-causal mask needs as many queries ({}) as keys ({})", self.q_len, self.k_len)
        })?;
        ensure(self.segments.is_none() || self.q_len <= self.k_len, &|| {
            format!("segments leave {} queries without a place among {} keys", self.q_len, self.k_len)
        })?;
        Ok(())
    }

    fn check_inputs(&self, op: &'static str, q: &View, k: &View, v: &View) -> Result<Call> {
        self.check(op)?;
        let call = Call::new(op, "q", q)?;
        call.same("q", q, self.q_size())?;
        call.same("k", k, self.kv_size())?;
        call.same("v", v, self.kv_size())?;
        check_lengths(call, "q_lens", self.q_lens, self.batch, self.q_len)?;
        check_lengths(call, "k_lens", self.k_lens, self.batch, self.k_len)?;
        if let Some(segments) = self.segments {
            call.typed("segments", &segments, DType::I32, self.batch * self.k_len)?;
        }
        Ok(call)
    }
}

/// On the CPU also each length; elsewhere the host does not see them, and kernels clamp them into their range.
fn check_lengths(call: Call, what: &'static str, lens: Option<View>, batch: usize, most: usize) -> Result<()> {
    let Some(lens) = lens else { return Ok(()) };
    call.typed(what, &lens, DType::I32, batch)?;
    if lens.kind() != Kind::Cpu {
        return Ok(());
    }
    let lens = lens.slice::<i32>();
    let fits = |len: i32| usize::try_from(len).is_ok_and(|len| len <= most);
    match lens.iter().position(|&len| !fits(len)) {
        None => Ok(()),
        Some(at) => Err(call.refuse(format!("{what}[{at}] is {}, outside 0..={most}", lens[at]))),
    }
}

/// Attends.
///
/// `q` is `(batch, q_len, q_heads, head_dim)`, `k` and `v` are `(batch, kv_stride, kv_heads, head_dim)` of which the
/// first `k_len` tokens of each sequence count; `out` has the shape of `q`; `lse`, in `A`, is `(batch, q_heads, q_len)`
/// and receives the log-sum-exp of each query's scaled scores.
///
/// # Errors
/// Lengths, types or devices that do not fit `p`; heads that do not divide; lengths outside `0..=q_len` or `0..=k_len`,
/// where the host sees them: on a GPU they are brought into that range. There heads are at most 128 wide.
pub fn attention(p: &Attention, q: View, k: View, v: View, out: &mut ViewMut, lse: &mut ViewMut) -> Result<()> {
    const OP: &str = "attention";
    let call = p.check_inputs(OP, &q, &k, &v)?;
    call.same("out", out, p.q_size())?;
    call.accumulator("lse", lse, p.rows())?;
    profile::computes(p.products(2.0));
    on_device!("attention", q, T => {
        cpu::forward::<T>(p, q.slice(), k.slice(), v.slice(), out.slice_mut(), lse.slice_mut())
    }, gpu => gpu::forward(p, q, k, v, out, lse))
}

/// What [`attention_backward`] reads: what [`attention`] read and wrote, and the output's gradient.
#[derive(Debug, Clone, Copy)]
pub struct Saved<'a> {
    /// As in [`attention`].
    pub q: View<'a>,
    /// As in [`attention`].
    pub k: View<'a>,
    /// As in [`attention`].
    pub v: View<'a>,
    /// What the forward pass wrote.
    pub out: View<'a>,
    /// What the forward pass wrote.
    pub lse: View<'a>,
    /// Of the shape of `out`.
    pub dout: View<'a>,
}

/// What [`attention_backward`] writes, of the shapes of q, k and v.
#[derive(Debug)]
pub struct Gradients<'a> {
    /// Of q.
    pub dq: ViewMut<'a>,
    /// Of k.
    pub dk: ViewMut<'a>,
    /// Of v.
    pub dv: ViewMut<'a>,
}

/// The gradients of [`attention`], for the same `p`. With grouped queries `dk` and `dv` sum over the query heads in their order.
///
/// # Errors
/// As for [`attention`]; `kv_stride` has to equal `k_len`.
pub fn attention_backward(p: &Attention, saved: Saved, gradients: Gradients) -> Result<()> {
    const OP: &str = "attention_backward";
    let Saved { q, k, v, out, lse, dout } = saved;
    let call = p.check_inputs(OP, &q, &k, &v)?;
    if p.kv_stride != p.k_len {
        return Err(call.refuse(format!("keys of {} tokens in strides of {}", p.k_len, p.kv_stride)));
    }
    call.same("out", &out, p.q_size())?;
    call.same("dout", &dout, p.q_size())?;
    call.accumulator("lse", &lse, p.rows())?;
    call.same("dq", &gradients.dq, p.q_size())?;
    call.same("dk", &gradients.dk, p.kv_size())?;
    call.same("dv", &gradients.dv, p.kv_size())?;
    profile::computes(p.products(5.0));
    on_device!("attention_backward", q, T => cpu::backward::<T>(p, saved, gradients),
        gpu => gpu::backward(p, saved, gradients))
}

/// The softmax weights themselves, in `A`, `(batch, q_heads, q_len, k_len)`, before dropout: for pictures.
pub fn attention_weights(p: &Attention, q: View, k: View, lse: View, weights: &mut ViewMut) -> Result<()> {
    const OP: &str = "attention_weights";
    let call = p.check_inputs(OP, &q, &k, &k)?;
    call.accumulator("lse", &lse, p.rows())?;
    call.accumulator("weights", weights, p.rows() * p.k_len)?;
    on_device!("attention_weights", q, T => {
        cpu::weights::<T>(p, q.slice(), k.slice(), lse.slice(), weights.slice_mut())
    }, gpu => gpu::weights(p, q, k, lse, weights))
}

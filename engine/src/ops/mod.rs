//! The ops: one file each, forward and backward side by side.
//!
//! Every op checks shapes, computes through one kernel (or a few) and records its derivative when an input is on a
//! tape. Shapes are written `(batch, tokens, dim)`; "rows" stands for all dimensions but the last.

mod activate;
mod add;
mod add_broadcast;
mod attention;
mod cast;
mod clip_loss;
mod concat;
mod cross_entropy;
mod dropout;
mod embedding;
mod l2_normalize;
mod layer_norm;
mod linear;
mod matmul;
mod mul;
mod patch_embed;
pub(crate) mod recompute;
mod repeat;
mod reshape;
mod rms_norm;
mod rotary;
mod scale;
mod siglip_loss;
mod silu_mul;
mod slice;
mod sum;

pub use activate::activate;
pub use add::add;
pub use add_broadcast::add_broadcast;
pub use attention::{Attend, attention, attention_weights};
pub use cast::cast;
pub use clip_loss::clip_loss;
pub use concat::concat;
pub use cross_entropy::{CrossEntropy, linear_cross_entropy};
pub use dropout::dropout;
pub use embedding::embedding;
pub use l2_normalize::l2_normalize;
pub use layer_norm::layer_norm;
pub use linear::{linear, linear_act, linear_residual};
pub use matmul::matmul;
pub use mul::mul;
pub use patch_embed::patch_embed;
pub use repeat::repeat;
pub use reshape::reshape;
pub use rms_norm::rms_norm;
pub use rotary::rotary;
pub use scale::scale;
pub use siglip_loss::siglip_loss;
pub use silu_mul::silu_mul;
pub use slice::slice;
pub use sum::{mean_axis, sum, sum_axis};

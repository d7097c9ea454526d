//! Vision transformer, Q-Former, projector, decoder and low-rank adapters, and the vision-language model made of
//! them; the tokenizer, chat template and image processor in front of it; its files behind it.
//!
//! Layers hold parameter ids: `new` adds parameters to a [`engine::ParamBuilder`], `forward` computes on an
//! [`engine::Graph`]. Shapes are written `(batch, tokens, dim)`.

mod attention;
mod config;
mod decoder;
mod error;
mod kv_cache;
mod linear;
mod maps;
mod norm;
mod positions;
mod projector;
mod qformer;
mod texts;
mod vit;
mod vlm;

pub use config::{
    AdapterConfig, AdapterKind, DecoderConfig, HiddenAct, ImageAttention, ImagePositions, LoraConfig, LoraConfigs,
    PositionKind, QFormerConfig, VisionConfig, VlmConfig,
};
pub use decoder::Decoder;
pub use error::{Error, Result};
pub use kv_cache::KvCache;
pub use linear::{Linear, LinearSpec};
pub use maps::AttentionMaps;
pub use positions::GridPositions;
pub use projector::Projector;
pub use qformer::QFormer;
pub use texts::{IGNORE, TextBatch, Texts, Turn};
pub use vit::Vit;
pub use vlm::Vlm;

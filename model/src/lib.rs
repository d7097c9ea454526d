//! Vision transformer, Q-Former, projector, decoder and low-rank adapters, and the vision-language model made of
//! them; the tokenizer, chat template and image processor in front of it; its files behind it.
//!
//! Layers hold parameter ids: `new` adds parameters to a [`engine::ParamBuilder`], `forward` computes on an
//! [`engine::Graph`]. Shapes are written `(batch, tokens, dim)`.

mod attention;
mod chat;
mod chat_template;
mod config;
mod decoder;
mod dual_encoder;
mod encoder;
mod error;
mod files;
mod generate;
mod groups;
mod guard;
pub mod hf;
mod image;
mod kv_cache;
mod linear;
pub mod lora;
mod maps;
mod norm;
mod positions;
mod pretrained;
mod projector;
mod qformer;
mod sampler;
pub mod sandbox;
mod text_encoder;
mod texts;
mod tokenizer;
mod vit;
mod vlm;
pub mod weights;

pub use chat::{Chat, Message, Part, Role, prompt};
pub use config::{
    AdapterConfig, AdapterKind, DecoderConfig, DualConfig, DualKind, HiddenAct, ImageAttention, ImagePositions,
    LoraConfig, LoraConfigs, PositionKind, QFormerConfig, RopeScaling, TextConfig, VisionConfig, VlmConfig,
};
pub use decoder::Decoder;
pub use dual_encoder::DualEncoder;
pub use error::{Error, Result};
pub use files::{file_kind, open_file, read_file, write_atomically};
pub use generate::{Answer, Beams, Finish, Generation, Generator, Kept, Listener, Piece, Prompt, Request};
pub use groups::{GroupRule, check_groups, freezes, set_groups};
pub use guard::{Panicked, guarded};
pub use image::{
    Fit, ImageProcessor, MAX_IMAGE_FILE, ProcessorType, Resample, Resize, Steps, decode_image, open_image, resize,
};
pub use kv_cache::KvCache;
pub use linear::{Linear, LinearSpec};
pub use maps::AttentionMaps;
pub use positions::GridPositions;
pub use pretrained::{FolderPlan, Pretrained};
pub use projector::Projector;
pub use qformer::QFormer;
pub use sampler::Sampler;
pub use text_encoder::TextEncoder;
pub use texts::{IGNORE, TextBatch, Texts, Turn};
pub use tokenizer::{DecodeStream, Roles, Specials, Starts, Tokenizer};
pub use vit::Vit;
pub use vlm::Vlm;

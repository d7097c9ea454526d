//! Small untrained models.

use engine::{DType, Device};
use model::{AdapterConfig, AdapterKind, Chat, DecoderConfig, ImageProcessor, Pretrained};
use model::{QFormerConfig, Tokenizer, VisionConfig, Vlm, VlmConfig};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const WORDS: &str = "is there a dog cat in the image ? this statement true of picture false answer or . yes no describe one \
                     sentence red two under how many what";
/// The tokenizer of models with 31 ids, eight of which are special tokens.
const FEW_WORDS: &str = "a photo of dog cat red two the";

/// A model that answers, compares and matches at random.
pub(crate) fn vision_model() -> TempDir {
    let folder = TempDir::new().expect("a folder");
    let tokenizer = Tokenizer::word_level([WORDS]).expect("words");
    let config = VlmConfig {
        vocab_size: tokenizer.vocab_size(),
        vision: VisionConfig { image_size: 24, num_hidden_layers: 1, ..VisionConfig::default() },
        qformer: Some(QFormerConfig {
            num_query_tokens: 2,
            hidden_size: 16,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 32,
            projection: 8,
            ..QFormerConfig::default()
        }),
        adapter: AdapterConfig { kind: AdapterKind::Both, ..AdapterConfig::default() },
        decoder: DecoderConfig { num_hidden_layers: 1, max_position_embeddings: 128, ..DecoderConfig::default() },
        ..VlmConfig::default()
    };
    let (vlm, params) = Vlm::build(&config, &Device::cpu(), DType::F32, 1).expect("a model");
    let whole = Pretrained {
        chat: Chat::own(&tokenizer).expect("roles"),
        processor: ImageProcessor { size: 24, ..ImageProcessor::default() },
        vlm,
        params,
        tokenizer,
    };
    whole.save(folder.path()).expect("saved");
    folder
}

/// A model of the reference's, with a vocabulary and an image processor of ours.
pub(crate) fn published_model(name: &str, size: usize) -> TempDir {
    let folder = TempDir::new().expect("a folder");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/parity").join(name);
    fs::copy(source.join("model.safetensors"), folder.path().join("model.safetensors")).expect("a copy");
    // OpenAI's way of saying that a text is summed up at its largest id.
    let config = fs::read_to_string(source.join("config.json")).expect("a configuration");
    fs::write(folder.path().join("config.json"), config.replace("\"eos_token_id\": 30", "\"eos_token_id\": 2"))
        .expect("written");
    Tokenizer::word_level([FEW_WORDS]).expect("words").save(folder.path()).expect("saved");
    let processor = ImageProcessor { size, ..ImageProcessor::default() };
    processor.save(folder.path()).expect("saved");
    folder
}

//! Trained parts that a run starts from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Trained parts that a run starts from: folders in Hugging Face's layout, or `owner/name` in the hub's cache. What a part
/// says of its own shape need not be said again under `[model]`. Strings may contain `${NAME}` and `${NAME:-default}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pretrained {
    /// A whole vision-language model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// An image encoder: CLIP's, SigLIP's or a vision-language model's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vision: Option<String>,
    /// A Q-Former with its queries: that of a run, of BLIP-2's first stage or of a whole BLIP-2, or a new one that starts from
    /// a BERT. Where the recipe has no [phase1], its parts for texts are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qformer: Option<String>,
    /// A language model: Llama's, Mistral's, Qwen2's or a vision-language model's. Its tokenizer and chat template are the run's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoder: Option<String>,
    /// What stands for an image in a text; added to the vocabulary where it is not in it. Default `<image>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_token: Option<String>,
}

impl Pretrained {
    /// Whether the run starts from nothing.
    pub fn is_empty(&self) -> bool {
        *self == Pretrained::default()
    }

    /// The part that gives tokenizer and chat template.
    pub fn text(&self) -> Option<&str> {
        self.model.as_deref().or(self.decoder.as_deref())
    }

    /// The part that gives the image processor.
    pub fn images(&self) -> Option<&str> {
        self.model.as_deref().or(self.vision.as_deref())
    }
}

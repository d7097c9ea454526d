//! A model's folder: everything needed to use it.

use crate::chat::Chat;
use crate::error::{Result, at, config};
use crate::files::write_atomically;
use crate::groups::GroupRule;
use crate::hf;
use crate::image::ImageProcessor;
use crate::tokenizer::Tokenizer;
use crate::vlm::Vlm;
use engine::{DType, Device, Params};
use serde::Serialize;
use serde_json::json;
use std::io::Write;
use std::path::Path;

/// A model with its weights, tokenizer and image processor.
#[derive(Debug)]
pub struct Pretrained {
    /// The model.
    pub vlm: Vlm,
    /// Its weights.
    pub params: Params,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// What turns images into its input.
    pub processor: ImageProcessor,
    /// How its conversations are laid out.
    pub chat: Chat,
}

impl Pretrained {
    /// Writes a Hugging Face folder ([`crate::hf::save`]) with tokenizer, image processor and the ids that end an answer.
    /// Each file appears whole or not at all; the weights come last.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let model = hf::Model::Vlm(Box::new(self.vlm.clone()));
        FolderPlan::of(model, &self.tokenizer, &self.processor, Some(&self.chat))?.write(folder, &self.params)
    }

    /// Reads a vision-language model's folder, ours or the reference's, to be used and not trained: its weights are kept
    /// once, in `dtype`.
    ///
    /// # Errors
    /// When a file is missing or malformed, the model is of another kind, or the files do not fit together.
    pub fn load(folder: &Path, device: &Device, dtype: DType) -> Result<Pretrained> {
        let vlm_config = hf::vlm_config(folder)?;
        let processor = ImageProcessor::open(folder)?;
        let tokenizer = Tokenizer::open(folder)?;
        let chat = Chat::open(folder, &tokenizer)?;
        if processor.size != vlm_config.vision.image_size {
            return config(
                "vision.image_size",
                format!("{}, but images are processed to {}", vlm_config.vision.image_size, processor.size),
            );
        }
        if tokenizer.vocab_size() > vlm_config.vocab_size {
            return config(
                "vocab_size",
                format!("{}, but the tokenizer has {} ids", vlm_config.vocab_size, tokenizer.vocab_size()),
            );
        }
        let frozen = [GroupRule { pattern: "*".into(), lr_scale: 1.0, freeze: true, ..GroupRule::default() }];
        let parts = [(hf::Part::Whole, folder.to_path_buf())];
        let (vlm, params) = hf::assemble(&vlm_config, &parts, device, dtype, 0, (&frozen, 0.0, None))?;
        Ok(Pretrained { vlm, params, tokenizer, processor, chat })
    }
}

/// A model's folder as it will be written. All but the weights is known before training: what cannot be written is refused
/// when the plan is made, or shows when [`FolderPlan::write_settings`] is tried.
#[derive(Debug)]
pub struct FolderPlan {
    weights: hf::SavePlan,
    tokenizer: Tokenizer,
    processor: ImageProcessor,
    chat: Option<Chat>,
}

impl FolderPlan {
    /// # Errors
    /// [`crate::Error::Config`] when the model can be written in no way.
    pub fn of(
        model: hf::Model,
        tokenizer: &Tokenizer,
        processor: &ImageProcessor,
        chat: Option<&Chat>,
    ) -> Result<FolderPlan> {
        Ok(FolderPlan {
            weights: hf::SavePlan::of(model)?,
            tokenizer: tokenizer.clone(),
            processor: processor.clone(),
            chat: chat.cloned(),
        })
    }

    /// Writes tokenizer, image processor, chat template and the ids that end an answer to `folder`, which is made if need be.
    /// Each file appears whole or not at all.
    ///
    /// # Errors
    /// Those of files; a part that cannot be written.
    pub fn write_settings(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(at(folder))?;
        self.processor.save(folder)?;
        self.tokenizer.save(folder)?;
        let (Some(chat), hf::Model::Vlm(vlm)) = (&self.chat, self.weights.model()) else {
            return Ok(());
        };
        chat.save(folder)?;
        if let (hf::Format::Transformers("LlavaForConditionalGeneration"), Some(id)) =
            (hf::format(&vlm.config), vlm.config.image_token)
        {
            let processor = llava_processor(vlm, self.tokenizer.token(id));
            write_json(&folder.join("processor_config.json"), &processor)?;
        }
        let specials = self.tokenizer.specials();
        let generation = json!({
            "bos_token_id": specials.bos,
            "eos_token_id": self.tokenizer.ends(),
            "pad_token_id": specials.pad,
        });
        write_json(&folder.join("generation_config.json"), &generation)
    }

    /// Writes the whole folder, the weights last.
    pub fn write(&self, folder: &Path, params: &Params) -> Result<()> {
        self.write_settings(folder)?;
        self.weights.write(folder, params)
    }
}

/// What `transformers` wants to know to put image slots into texts.
fn llava_processor(vlm: &Vlm, image_token: Option<String>) -> serde_json::Value {
    let vision = &vlm.config.vision;
    let all = vlm.config.image_tokens() == vision.tokens();
    json!({
        "processor_class": "LlavaProcessor",
        "image_token": image_token,
        "patch_size": vision.patch_size,
        "num_additional_image_tokens": vision.tokens() - vision.patches(),
        "vision_feature_select_strategy": if all { "full" } else { "default" },
    })
}

pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let json = serde_json::to_string_pretty(value).map_err(at(path))?;
    write_atomically(path, |file| writeln!(file, "{json}")).map_err(at(path))
}

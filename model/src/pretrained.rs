//! A model's folder: everything needed to use it.

use crate::config::VlmConfig;
use crate::error::{Result, at, config};
use crate::files::write_atomically;
use crate::image::ImageProcessor;
use crate::tokenizer::Tokenizer;
use crate::vlm::Vlm;
use crate::weights;
use engine::{DType, Device, Params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::Write;
use std::path::Path;

/// Largest configuration file read, in bytes.
const MAX_CONFIG: u64 = 1 << 20;

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
}

impl Pretrained {
    /// Writes `config.json`, `model.safetensors`, `tokenizer.json` and `preprocessor_config.json` to a folder, which
    /// is made if need be. Each file appears whole or not at all; the weights come last.
    pub fn save(&self, folder: &Path) -> Result<()> {
        save_folder(folder, &self.vlm.config, &self.params, &self.tokenizer, &self.processor)
    }

    /// Reads a folder that [`Pretrained::save`] wrote.
    ///
    /// # Errors
    /// When a file is missing or malformed, or the files do not fit together.
    pub fn load(folder: &Path, device: &Device, dtype: DType) -> Result<Pretrained> {
        let vlm_config: VlmConfig = read_json(&folder.join("config.json"))?;
        let processor = ImageProcessor::open(folder)?;
        let tokenizer = Tokenizer::open(folder)?;
        if processor.size != vlm_config.vision.image_size {
            return config(
                "vision.image_size",
                format!(
                    "{}, but images are processed to {}",
                    vlm_config.vision.image_size, processor.size
                ),
            );
        }
        if tokenizer.vocab_size() > vlm_config.vocab_size {
            return config(
                "vocab_size",
                format!(
                    "{}, but the tokenizer has {} ids",
                    vlm_config.vocab_size,
                    tokenizer.vocab_size()
                ),
            );
        }
        let (vlm, mut params) = Vlm::build(&vlm_config, device, dtype, 0)?;
        weights::load(&folder.join("model.safetensors"), &mut params, "")?;
        Ok(Pretrained {
            vlm,
            params,
            tokenizer,
            processor,
        })
    }
}

/// As [`Pretrained::save`], from the parts.
pub fn save_folder(
    folder: &Path,
    vlm: &VlmConfig,
    params: &Params,
    tokenizer: &Tokenizer,
    processor: &ImageProcessor,
) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(at(folder))?;
    write_json(&folder.join("config.json"), vlm)?;
    processor.save(folder)?;
    tokenizer.save(folder)?;
    weights::save(params, &folder.join("model.safetensors"))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let length = std::fs::metadata(path).map_err(at(path))?.len();
    if length > MAX_CONFIG {
        return Err(at(path)(format!("{length} bytes, at most {MAX_CONFIG} are read")));
    }
    let bytes = std::fs::read(path).map_err(at(path))?;
    serde_json::from_slice(&bytes).map_err(at(path))
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let json = serde_json::to_string_pretty(value).map_err(at(path))?;
    write_atomically(path, |file| writeln!(file, "{json}")).map_err(at(path))
}

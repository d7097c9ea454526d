//! Vision-language models whose parts come from different folders: a trained image encoder, a trained language model, and
//! what connects them new.

use super::fields::Fields;
use super::{Layout, decoder, own, peft, towers, vlm};
use crate::config::{DecoderConfig, DualKind, HiddenAct, QFormerConfig, VisionConfig, VlmConfig};
use crate::error::Result;
use crate::groups::{GroupRule, groups};
use crate::weights::{Checkpoint, Plan, Source};
use crate::{QFormer, Vit, Vlm};
use engine::{DType, Device, ParamBuilder, ParamSpec, Params};
use std::path::{Path, PathBuf};

/// Which part of a vision-language model a folder gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The image encoder.
    Vision,
    /// The Q-Former with its queries, and its heads and embeddings where it takes texts.
    Qformer,
    /// The language model.
    Decoder,
}

/// The configuration of the vision-language model in a folder.
///
/// # Errors
/// When there is none that is known; names the file and the field.
pub fn vlm_config(folder: &Path) -> Result<VlmConfig> {
    let fields = open(folder)?;
    match fields.need::<String>("model_type")?.as_str() {
        "llava" => vlm::llava(fields),
        "blip-2" => vlm::blip2(fields),
        own::TYPE => own::read(fields),
        other => fields.bad(
            "model_type",
            format!("`{other}` is no vision-language model; expected llava, blip-2 or {}", own::TYPE),
        ),
    }
}

/// The configuration of the image encoder in a folder: of CLIP, SigLIP, or a vision-language model.
pub fn vision_config(folder: &Path) -> Result<VisionConfig> {
    let fields = open(folder)?;
    let kind: String = fields.need("model_type")?;
    let family = if kind.starts_with("siglip") { DualKind::Siglip } else { DualKind::Clip };
    let tower = match kind.as_str() {
        "clip" | "siglip" => fields.table("vision_config")?,
        "clip_vision_model" | "siglip_vision_model" => fields,
        "blip-2" => return towers::blip2_vision(fields.table("vision_config")?),
        "llava" | own::TYPE => return Ok(vlm_config(folder)?.vision),
        other => {
            let known = "clip, siglip, their _vision_model, llava and blip-2 have one";
            return fields.bad("model_type", format!("`{other}` has no image encoder that is known; {known}"));
        }
    };
    let head = family == DualKind::Siglip && tower.or("vision_use_head", true)?;
    towers::vision(tower, family, head)
}

/// The configuration of the Q-Former in a folder: of BLIP-2, its first stage, a model of our own, or one that starts from a
/// BERT, as BLIP-2's did; `said` is what of it is free to choose then: queries, how often they look at the image, and the width of
/// the space of comparison.
///
/// # Errors
/// As [`vlm_config`]; when the model has none.
pub fn qformer_config(folder: &Path, said: &QFormerConfig) -> Result<QFormerConfig> {
    let fields = open(folder)?;
    let kind: String = fields.need("model_type")?;
    let found = match kind.as_str() {
        "blip-2" => {
            let retrieval = fields.table("qformer_config")?.or("use_qformer_text_input", false)?;
            return Ok(vlm::blip2_parts(&fields, retrieval)?.1);
        }
        own::TYPE => own::read(open(folder)?)?.qformer,
        "bert" => return bert(&fields, said),
        _ => None,
    };
    match found {
        Some(qformer) => Ok(qformer),
        None => fields.bad(
            "model_type",
            format!("`{kind}` has no Q-Former that is known; expected blip-2, bert or a run with one"),
        ),
    }
}

/// A Q-Former in the shape of a BERT.
fn bert(fields: &Fields, said: &QFormerConfig) -> Result<QFormerConfig> {
    fields.only("position_embedding_type", "absolute".to_string())?;
    Ok(QFormerConfig {
        num_query_tokens: said.num_query_tokens,
        hidden_size: fields.need("hidden_size")?,
        num_hidden_layers: fields.need("num_hidden_layers")?,
        num_attention_heads: fields.need("num_attention_heads")?,
        intermediate_size: fields.need("intermediate_size")?,
        cross_attention_frequency: said.cross_attention_frequency,
        max_position_embeddings: fields.need("max_position_embeddings")?,
        hidden_act: fields.or("hidden_act", HiddenAct::Gelu)?,
        text: true,
        layer_norm_eps: fields.or("layer_norm_eps", 1e-12)?,
        dropout: fields.or("hidden_dropout_prob", 0.1)?,
        attention_dropout: fields.or("attention_probs_dropout_prob", 0.1)?,
        projection: said.projection,
        positions_in_keys: false,
        norm_first: false,
    })
}

/// The configuration of the language model in a folder and the size of its vocabulary.
pub fn decoder_config(folder: &Path) -> Result<(DecoderConfig, usize)> {
    let fields = open(folder)?;
    let kind: String = fields.need("model_type")?;
    if decoder::TYPES.contains(&kind.as_str()) {
        return decoder::read(fields, &kind);
    }
    let whole = vlm_config(folder)?;
    Ok((whole.decoder, whole.vocab_size))
}

/// A model as `config` says, its parts from folders and everything else freshly initialised, in the groups that
/// [`crate::set_groups`] makes by `rules`, weight decay and Muon's factor, so that nothing need move when training begins:
/// frozen parameters take room once, in `dtype`. Where images are of another size than an encoder's, its learned positions are
/// interpolated; where the vocabulary is larger than a language model's own, the new ids
/// get the mean of its embeddings.
///
/// # Errors
/// When a folder cannot be read or its weights do not fit the configuration.
pub fn assemble(
    config: &VlmConfig,
    parts: &[(Part, PathBuf)],
    device: &Device,
    dtype: DType,
    seed: u64,
    (rules, weight_decay, muon): (&[GroupRule], f64, Option<f64>),
) -> Result<(Vlm, Params)> {
    let mut builder = ParamBuilder::new();
    let vlm = Vlm::new(&mut builder, config)?;
    let sources: Vec<_> =
        parts.iter().map(|(part, folder)| Origin::open(*part, folder, &config.vision)).collect::<Result<_>>()?;
    let comes = |name: &str| sources.iter().any(|origin| origin.source(name) != Source::Initial);
    let entries = builder.specs().to_vec();
    let plans: Vec<Plan<'_>> = sources.iter().map(|origin| origin.plan(&entries)).collect::<Result<_>>()?;
    let (groups, place) = groups(&entries, rules, weight_decay, muon);
    let mut params = builder.build_with_weights(device, dtype, seed, (groups, place), comes)?;
    for plan in plans {
        plan.load(&mut params)?;
    }
    Ok((vlm, params))
}

fn open(folder: &Path) -> Result<Fields> {
    Fields::open(&peft::file(folder, "config.json")?)
}

/// A folder and what of it is taken.
struct Origin {
    checkpoint: Checkpoint,
    part: Part,
    layout: Layout,
    /// The folder holds a language model alone.
    text_only: bool,
    /// The folder is Lenslet's own, in which adapters lie beside the weights they are for.
    own: bool,
    /// Of an image encoder for images of another size: tokens without a place, and patches a side.
    grid: Option<(usize, usize)>,
}

impl Origin {
    /// Opens the folder of a part of a model whose image encoder is `vision`.
    fn open(part: Part, folder: &Path, vision: &VisionConfig) -> Result<Origin> {
        let kind: String = open(folder)?.need("model_type")?;
        let encoder = matches!(part, Part::Whole | Part::Vision);
        let stored = encoder.then(|| vision_config(folder)).transpose()?;
        let resized = stored.filter(|stored| stored.image_size != vision.image_size);
        Ok(Origin {
            grid: resized.map(|stored| (stored.tokens() - stored.patches(), stored.grid())),
            checkpoint: peft::checkpoint(folder)?,
            part,
            layout: match kind.as_str() {
                "llava" => Layout::Llava,
                "blip-2" => Layout::Blip2,
                "bert" => Layout::Bert,
                _ => Layout::Same,
            },
            text_only: decoder::TYPES.contains(&kind.as_str()),
            own: kind == own::TYPE,
        })
    }

    fn plan(&self, entries: &[ParamSpec]) -> Result<Plan<'_>> {
        self.checkpoint.plan(entries, |name| self.source(name), |name| self.holds(name))
    }

    /// Where a parameter of the whole model lies in the folder.
    fn source(&self, name: &str) -> Source {
        let wanted = match self.part {
            Part::Whole => true,
            Part::Vision => name.starts_with("vision_model."),
            Part::Qformer => QFormer::owns(name),
            Part::Decoder => name.starts_with("language_model."),
        };
        if !wanted || name.contains(".lora_") && !self.own {
            return Source::Initial;
        }
        let stored = match (self.text_only, self.part) {
            (true, _) => Source::named([name.strip_prefix("language_model.").unwrap_or(name)]),
            // Newer versions have no `vision_model` around an encoder alone.
            (false, Part::Vision) if self.layout == Layout::Same => {
                Source::named([name, name.strip_prefix("vision_model.").unwrap_or(name)])
            }
            _ => self.layout.source(name),
        };
        match (stored, self.grid) {
            (Source::Tensor(names), Some((leading, side))) if name == Vit::POSITIONS => {
                Source::Grid(names, leading, side)
            }
            (Source::Tensor(names), _) if name.ends_with("embed_tokens.weight") || name.ends_with("lm_head.weight") => {
                Source::Grown(names)
            }
            (stored, _) => stored,
        }
    }

    /// Whether a tensor of the folder is of the part that is taken.
    fn holds(&self, stored: &str) -> bool {
        match self.part {
            Part::Whole => true,
            // SigLIP's pooling head belongs to the dual encoder.
            Part::Vision => stored.contains("vision_model.") && !stored.contains("vision_model.head."),
            // Its parts for texts are left where only its queries are wanted.
            Part::Qformer => false,
            Part::Decoder => self.text_only || stored.contains("language_model.") || stored.starts_with("lm_head."),
        }
    }
}

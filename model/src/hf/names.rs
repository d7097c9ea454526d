//! Where our parameters lie in files of the reference, where not under the same name.

use super::Model;
use crate::config::DualKind;
use crate::weights::Source;
use engine::Shape;

/// How a folder names its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// As we do.
    Same,
    /// CLIP and SigLIP.
    Dual,
    /// LLaVA.
    Llava,
    /// BLIP-2.
    Blip2,
    /// BERT, from which BLIP-2's Q-Former starts.
    Bert,
}

impl Layout {
    /// Where a parameter lies.
    pub(super) fn source(self, name: &str) -> Source {
        match self {
            Layout::Same => same(name),
            Layout::Dual => dual(name),
            Layout::Llava => llava(name),
            Layout::Blip2 => blip2(name),
            Layout::Bert => bert(name),
        }
    }

    /// The shape a parameter has in a file, where it has other sizes of 1 than ours: most are stored as they are.
    pub(super) fn shape(self, model: &Model, name: &str, shape: Shape) -> Shape {
        let in_front = match (self, name) {
            (Layout::Dual, "logit_scale") => {
                let scalar = matches!(model, Model::Dual(dual) if dual.config.kind == DualKind::Clip);
                return if scalar { Shape::new(&[]) } else { shape };
            }
            (Layout::Dual, "vision_model.head.probe") => true,
            (Layout::Blip2, "vision_model.embeddings.class_embedding") => true,
            (Layout::Blip2, "vision_model.embeddings.position_embedding.weight") => true,
            _ => false,
        };
        match in_front {
            true => Shape::from([1, shape.rows(), shape.last()]),
            false => shape,
        }
    }
}

/// Under the same name.
fn same(name: &str) -> Source {
    Source::named([name])
}

/// CLIP and SigLIP: the pooling head keeps queries, keys and values in one tensor.
fn dual(name: &str) -> Source {
    match split(name, "vision_model.head.attention") {
        Some((head, part, kind)) => Source::Rows(vec![format!("{head}.in_proj_{kind}")], part, 3),
        None => same(name),
    }
}

/// LLaVA: the towers lie under names of their own, with or without `model.` around all but the output layer.
fn llava(name: &str) -> Source {
    if let Some(rest) = name.strip_prefix("language_model.model.") {
        return Source::named([name.to_string(), format!("model.language_model.{rest}")]);
    }
    if let Some(rest) = name.strip_prefix("language_model.") {
        return Source::named([name, rest]);
    }
    // Newer versions have no `vision_model` around the image encoder.
    let tower = name.strip_prefix("vision_model.").map(|rest| format!("vision_tower.{rest}"));
    let name = match &tower {
        Some(_) => format!("vision_tower.{name}"),
        None => name.to_string(),
    };
    let names = [Some(name), tower].into_iter().flatten();
    Source::named(names.flat_map(|name| [name.clone(), format!("model.{name}")]))
}

/// BLIP-2: the image encoder keeps queries, keys and values in one tensor; the temperature is not in the files.
fn blip2(name: &str) -> Source {
    if name == "logit_scale" {
        return Source::Initial;
    }
    if name == "vision_model.embeddings.position_embedding.weight" {
        return Source::named(["vision_model.embeddings.position_embedding"]);
    }
    if let Some(layer) = name.strip_prefix("vision_model.").and(name.split_once(".self_attn.")) {
        let path = format!("{}.self_attn", layer.0);
        return match split(name, &path) {
            Some((_, part, kind)) => Source::Rows(vec![format!("{path}.qkv.{kind}")], part, 3),
            None => Source::named([name.replace(".out_proj.", ".projection.")]),
        };
    }
    same(name)
}

/// BERT: queries get the feed-forward layers of texts; what looks at images, compares and matches is not in it. Old files call a
/// norm's scale and shift `gamma` and `beta`.
fn bert(name: &str) -> Source {
    let inside = match name.strip_prefix("qformer.") {
        Some(rest) if rest.contains(".crossattention.") => return Source::Initial,
        Some(rest) => rest
            .replace("layernorm.", "embeddings.LayerNorm.")
            .replace(".attention.attention.", ".attention.self.")
            .replace("_query.", "."),
        None if name.starts_with("embeddings.") => name.to_string(),
        None => return Source::Initial,
    };
    let old = inside.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
    let names = [inside, old].into_iter().flat_map(|name| [format!("bert.{name}"), name]).collect();
    match name.ends_with("word_embeddings.weight") {
        true => Source::Grown(names),
        false => Source::Tensor(names),
    }
}

/// For the query, key or value layer of the attention at `path`: the path, its number among the three, and `weight` or
/// `bias`.
fn split<'n>(name: &'n str, path: &'n str) -> Option<(&'n str, usize, &'n str)> {
    let (layer, kind) = name.strip_prefix(path)?.strip_prefix('.')?.split_once('.')?;
    let part = ["q_proj", "k_proj", "v_proj"].iter().position(|known| *known == layer)?;
    Some((path, part, kind))
}

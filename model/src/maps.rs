//! Where the decoder looks in an image, for pictures.

use crate::config::AdapterKind;
use crate::error::{Result, input};
use crate::texts::{TextBatch, Turn};
use crate::vlm::Vlm;
use engine::{Graph, Var};

/// Attention weights of the text's last token over image slots.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionMaps {
    /// Decoder blocks.
    pub layers: usize,
    /// Query heads per block.
    pub heads: usize,
    /// Patches along a side when the slots are patches, none when they are queries.
    pub grid: Option<usize>,
    /// (layers, heads, slots), row by row; the query slots of a model that has both kinds are left out.
    pub weights: Vec<f32>,
}

impl AttentionMaps {
    /// Slots per map.
    pub fn slots(&self) -> usize {
        self.weights.len() / (self.layers * self.heads).max(1)
    }

    /// The mean over all blocks and heads: (slots).
    pub fn mean(&self) -> Vec<f32> {
        let (slots, maps) = (self.slots(), (self.layers * self.heads) as f32);
        (0..slots).map(|s| self.weights.iter().skip(s).step_by(slots).sum::<f32>() / maps).collect()
    }
}

impl Vlm {
    /// Where the last token of `prompt` looks in one image: pixels (1, 3, size, size). Where images stand within texts, the
    /// prompt has the token for it once.
    ///
    /// # Errors
    /// When there is not exactly one image, or no prompt.
    pub fn attention_maps(&self, g: &Graph<'_>, pixels: &Var, prompt: &[u32]) -> Result<AttentionMaps> {
        if pixels.shape().first() != Some(&1) || prompt.is_empty() {
            return input("attention maps", "one image and a prompt of at least one token are needed");
        }
        let visual = self.visual_tokens(g, pixels)?;
        let mut turn = Turn { ids: prompt.to_vec(), loss_mask: vec![false; prompt.len()] };
        if let Some(image) = self.config.image_token {
            turn.expand(image, self.config.image_tokens());
        }
        let mut text = TextBatch::pack(&[vec![turn]], 0, 1)?;
        text.images = vec![0];
        let joined = self.joined(g, &visual, &text)?;
        let blocks = self.decoder.last_attention(g, &joined.x, &joined.positions, &joined.attend)?;
        let slots = visual.shape()[1];
        // Query slots or the class token, in front of the patches.
        let others = match self.config.adapter.kind {
            AdapterKind::Both | AdapterKind::Mlp => slots - self.config.vision.patches(),
            AdapterKind::Qformer => 0,
        };
        let first = match self.config.image_token {
            Some(image) => text.ids.iter().position(|&id| id == image as i32).unwrap_or(0),
            None => 0,
        };
        let mut weights = Vec::new();
        for block in &blocks {
            let tokens = block.shape().last();
            for row in block.to_f64()?.chunks(tokens) {
                weights.extend(row[first + others..first + slots].iter().map(|&w| w as f32));
            }
        }
        Ok(AttentionMaps {
            layers: blocks.len(),
            heads: self.config.decoder.num_attention_heads,
            grid: (self.config.adapter.kind != AdapterKind::Qformer).then(|| self.config.vision.grid()),
            weights,
        })
    }
}

//! The training phases: what they share is written once, in [`Training`], and spelled flat in the recipe.

use crate::data::Layout;
use crate::data::scenes::QuestionWeights;
use model::GroupRule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The learning rate's course after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Curve {
    /// Stays at `lr`.
    Constant,
    /// Half a cosine from `lr` to `floor`.
    #[default]
    Cosine,
    /// A straight line from `lr` to `floor`.
    Linear,
}

/// Declares a phase: the keys every phase has, then its own.
macro_rules! phase {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $type:ty = $default:literal,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// Optimiser steps.
            pub steps: usize,
            /// Images per optimiser step and accumulated part.
            pub batch_size: usize,
            /// Batches whose gradients are added up before a step. Default 1.
            #[serde(default = "defaults::one")]
            pub accumulate: usize,
            /// Equal parts a batch is cut into, trained side by side and added up: with small models quicker than several
            /// threads within each operation. Contrast and matching compare what is in one part. Default 1.
            #[serde(default = "defaults::one")]
            pub shards: usize,
            /// The largest learning rate.
            pub lr: f64,
            /// The learning rate's course after warm-up. Default cosine.
            #[serde(default)]
            pub curve: Curve,
            /// The learning rate at the end. Default 0.
            #[serde(default)]
            pub floor: f64,
            /// Learning rate of Muon (Jordan et al. 2024) for the matrices inside blocks; None: AdamW for all.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub muon_lr: Option<f64>,
            /// Steps in which the learning rate grows from 0. Default 0.
            #[serde(default)]
            pub warmup: usize,
            /// Weight decay of matrices; norms, biases and embeddings have none. Default 0.05.
            #[serde(default = "defaults::weight_decay")]
            pub weight_decay: f64,
            /// Decay of AdamW's first moment. Default 0.9.
            #[serde(default = "defaults::beta1")]
            pub beta1: f64,
            /// Decay of AdamW's second moment. Default 0.98.
            #[serde(default = "defaults::beta2")]
            pub beta2: f64,
            /// Added to the root of the second moment. Default 1e-8.
            #[serde(default = "defaults::eps")]
            pub eps: f64,
            /// The gradients' largest norm; 0: not clipped. Default 1.
            #[serde(default = "defaults::clip")]
            pub clip: f64,
            /// Decay of the running average of the weights (EMA), which is what is measured and kept in their place; 0: none.
            /// Default 0.
            #[serde(default)]
            pub ema: f64,
            /// Round the bf16 copy of weights that AdamW steps up or down at random, by chances that keep the mean. Default
            /// false: to nearest.
            #[serde(default)]
            pub stochastic_rounding: bool,
            /// Recompute each block's activations in the backward pass instead of keeping them. Default false.
            #[serde(default)]
            pub recompute: bool,
            /// Steps from one measurement of the loss on held-out data to the next (`eval_loss`); 0: none. Default 0.
            #[serde(default)]
            pub eval_every: usize,
            /// Measurements in a row that are no better after which the phase ends; it ends with the best weights in any
            /// case. 0: it goes to its end and keeps the last. Default 0.
            #[serde(default)]
            pub patience: usize,
            $($(#[$doc])* #[serde(default = $default)] pub $field: $type,)*
            /// Parts trained differently.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            pub rules: Vec<GroupRule>,
        }

        impl $name {
            /// What this phase shares with the others.
            pub fn training(&self) -> Training {
                Training {
                    steps: self.steps,
                    batch_size: self.batch_size,
                    accumulate: self.accumulate,
                    shards: self.shards,
                    lr: self.lr,
                    curve: self.curve,
                    floor: self.floor,
                    muon_lr: self.muon_lr,
                    warmup: self.warmup,
                    weight_decay: self.weight_decay,
                    beta1: self.beta1,
                    beta2: self.beta2,
                    eps: self.eps,
                    clip: self.clip,
                    ema: self.ema,
                    stochastic_rounding: self.stochastic_rounding,
                    recompute: self.recompute,
                    eval_every: self.eval_every,
                    patience: self.patience,
                    rules: self.rules.clone(),
                }
            }
        }
    };
}

phase! {
    /// Contrastive training of a dual encoder, `[dual]`. All batches of a step are contrasted as one.
    ContrastPhase {
    }
}

phase! {
    /// Phase 1, image and text representations: contrastive (ITC), matching (ITM) and captioning (ITG) losses, each
    /// with its weight; 0 leaves a loss out.
    Phase1 {
        /// Weight of the contrastive loss. Default 1.
        itc: f64 = "defaults::weight",
        /// Weight of the matching loss. Default 1.
        itm: f64 = "defaults::weight",
        /// Weight of the captioning loss. Default 1.
        itg: f64 = "defaults::weight",
        /// Factor on the similarity by which wrong pairs for matching are drawn; 0 draws evenly. Default 1.
        itm_hardness: f64 = "defaults::weight",
    }
}

phase! {
    /// Phase 2, instruction tuning: next-token loss on the answers of conversations about images.
    Phase2 {
        /// Every so many steps one is taken on phase 1's losses and batch instead, so that the encoder goes on serving
        /// the Q-Former; 0: never. Default 0.
        align_every: usize = "usize::default",
        /// Keep what the image encoder says of each image on disk and train without running it again; it must be frozen.
        /// Not for scenes. Default false.
        cache_features: bool = "bool::default",
        /// Turns per conversation made from scenes. Default 4.
        turns: usize = "defaults::turns",
        /// Turns about one image do not see each other, so that each question can be asked alone. Default true for data on disk,
        /// false for scenes and for models that take images within the text, where each turn would repeat the image; switch it
        /// off where questions refer to those before.
        independent_turns: bool = "bool::default",
        /// Put several conversations, each with its own images, into one row of at most `data.max_tokens` tokens; they do not
        /// see each other. For models that take images within the text. Default false.
        packing: bool = "bool::default",
        /// How often each kind of question about scenes is asked at the first step. Default: all alike.
        questions_start: QuestionWeights = "defaults::questions",
        /// How often from `questions_until` on. Default: all alike.
        questions_end: QuestionWeights = "defaults::questions",
        /// The share of the steps after which the weights stay at `questions_end`. Default 1.
        questions_until: f64 = "defaults::weight",
    }
}

impl Phase2 {
    /// How conversations are laid out in rows.
    pub fn layout(&self) -> Layout {
        Layout { independent: self.independent_turns, packing: self.packing }
    }
}

/// What all phases have: schedule, optimiser, memory and parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Training {
    /// Optimiser steps.
    pub steps: usize,
    /// Images per optimiser step and accumulated part.
    pub batch_size: usize,
    /// Batches whose gradients are added up before a step.
    pub accumulate: usize,
    /// Equal parts of a batch, trained side by side.
    pub shards: usize,
    /// The largest learning rate.
    pub lr: f64,
    /// The learning rate's course after warm-up.
    pub curve: Curve,
    /// The learning rate at the end.
    pub floor: f64,
    /// Learning rate of Muon for the matrices inside blocks; none: AdamW for all.
    pub muon_lr: Option<f64>,
    /// Steps in which the learning rate grows from 0.
    pub warmup: usize,
    /// Weight decay of matrices.
    pub weight_decay: f64,
    /// Decay of AdamW's first moment.
    pub beta1: f64,
    /// Decay of AdamW's second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// The gradients' largest norm; 0: not clipped.
    pub clip: f64,
    /// Decay of the running average of the weights; 0: none.
    pub ema: f64,
    /// Round the bf16 copy of weights that AdamW steps at random.
    pub stochastic_rounding: bool,
    /// Recompute activations in the backward pass.
    pub recompute: bool,
    /// Steps from one measurement on held-out data to the next; 0: none.
    pub eval_every: usize,
    /// Measurements in a row that are no better after which the phase ends; 0: it goes to its end.
    pub patience: usize,
    /// Parts trained differently; the first match wins.
    pub rules: Vec<GroupRule>,
}

mod defaults {
    use super::QuestionWeights;

    pub(super) fn one() -> usize {
        1
    }
    pub(super) fn weight_decay() -> f64 {
        0.05
    }
    pub(super) fn beta1() -> f64 {
        0.9
    }
    pub(super) fn beta2() -> f64 {
        0.98
    }
    pub(super) fn eps() -> f64 {
        1e-8
    }
    pub(super) fn clip() -> f64 {
        1.0
    }
    pub(super) fn weight() -> f64 {
        1.0
    }
    pub(super) fn turns() -> usize {
        4
    }
    pub(super) fn questions() -> QuestionWeights {
        QuestionWeights::EVEN
    }
}

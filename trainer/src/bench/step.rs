//! `lenslet bench step`: a whole training step of a vision-language model (forward, backward, AdamW) at three sizes, with random
//! weights and data. `benches/peers/step.py` times other programs' steps of the same models in turn with it.

use crate::flops::Flops;
use crate::memory;
use crate::phases::Phase;
use anyhow::Result;
use clap::ValueEnum;
use engine::{AdamW, DType, Device, Graph, Optimizer, Params, Tensor};
use kernels::profile::Event;
use model::{
    AdapterConfig, AdapterKind, DecoderConfig, ImageAttention, ImagePositions, PositionKind, QFormerConfig, TextBatch,
    Turn, VisionConfig, Vlm, VlmConfig,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use std::time::Instant;

/// Steps in front of those that are timed: memory is taken and caches are filled in the first.
const WARM_UP: usize = 3;

/// Which model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Size {
    /// 64 pixels, everything 128 wide, 32 images at once.
    #[value(name = "S")]
    S,
    /// 96 pixels, everything 256 wide, 16 images at once.
    #[value(name = "M")]
    M,
    /// ViT-B/16, a Q-Former of 768 and SmolLM2-135M, one image.
    #[value(name = "L")]
    L,
}

impl Size {
    /// The model, tokens of text and images at once.
    fn shape(self) -> (VlmConfig, usize, usize) {
        match self {
            Size::S => (small(64, 128, [4, 2, 4], 4, (512, 344)), 32, 32),
            Size::M => (small(96, 256, [6, 4, 6], 8, (2048, 688)), 64, 16),
            Size::L => (large(), 128, 1),
        }
    }
}

/// A model whose parts are all `dim` wide, with so many blocks in encoder, Q-Former and decoder.
fn small(image: usize, dim: usize, blocks: [usize; 3], heads: usize, (vocab_size, gated): (usize, usize)) -> VlmConfig {
    model(
        vision(image, 8, dim, blocks[0], heads),
        qformer(8, dim, blocks[1], heads),
        DecoderConfig {
            hidden_size: dim,
            num_hidden_layers: blocks[2],
            num_attention_heads: heads,
            num_key_value_heads: heads,
            intermediate_size: gated,
            ..DecoderConfig::default()
        },
        vocab_size,
    )
}

fn large() -> VlmConfig {
    let decoder = DecoderConfig {
        hidden_size: 576,
        num_hidden_layers: 30,
        num_attention_heads: 9,
        num_key_value_heads: 3,
        intermediate_size: 1536,
        max_position_embeddings: 2048,
        ..DecoderConfig::default()
    };
    model(vision(224, 16, 768, 12, 12), qformer(32, 768, 4, 12), decoder, 49_152)
}

fn vision(image: usize, patch: usize, dim: usize, blocks: usize, heads: usize) -> VisionConfig {
    VisionConfig {
        image_size: image,
        patch_size: patch,
        hidden_size: dim,
        num_hidden_layers: blocks,
        num_attention_heads: heads,
        intermediate_size: 4 * dim,
        class_token: true,
        positions: PositionKind::Learned,
        ..VisionConfig::default()
    }
}

fn qformer(queries: usize, dim: usize, blocks: usize, heads: usize) -> QFormerConfig {
    QFormerConfig {
        num_query_tokens: queries,
        hidden_size: dim,
        num_hidden_layers: blocks,
        num_attention_heads: heads,
        intermediate_size: 4 * dim,
        text: false,
        positions_in_keys: false,
        ..QFormerConfig::default()
    }
}

fn model(vision: VisionConfig, qformer: QFormerConfig, decoder: DecoderConfig, vocab_size: usize) -> VlmConfig {
    VlmConfig {
        vision,
        qformer: Some(qformer),
        adapter: AdapterConfig { kind: AdapterKind::Qformer, linear: true, ..AdapterConfig::default() },
        decoder: DecoderConfig {
            image_attention: ImageAttention::Causal,
            image_positions: ImagePositions::Sequential,
            ..decoder
        },
        vocab_size,
        ..VlmConfig::default()
    }
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// S, M or L.
    pub size: String,
    /// What it computes in.
    pub dtype: String,
    /// Threads it may use.
    pub threads: usize,
    /// Parameters, all of them trained.
    pub parameters: usize,
    /// The loss after the last step.
    pub loss: f64,
    /// Milliseconds of each step.
    pub samples: Vec<f64>,
    /// Their median, and the quantiles at 20 and 80 %.
    pub milliseconds: [f64; 3],
    /// Floating-point operations of a step; see [`Flops`].
    pub flops: f64,
    /// Of them, billions a second at the median.
    pub gflops_per_s: f64,
    /// The most memory the process ever held, in bytes; None where the system does not say.
    pub peak_bytes: Option<u64>,
    /// The most that the pool of tensors ever took from the system, in bytes.
    pub pool_bytes: usize,
    /// What the pool took from the system during the timed steps.
    pub pool_growth_bytes: usize,
}

/// Takes `steps` steps and times each; `profiled`: with every kernel call in them.
pub fn run(size: Size, dtype: DType, device: &Device, steps: usize, profiled: bool) -> Result<(Report, Vec<Event>)> {
    let mut stepper = Stepper::new(size, dtype, device)?;
    for _ in 0..WARM_UP {
        stepper.step()?;
    }
    let held = device.memory().peak_reserved;
    let mut samples = Vec::with_capacity(steps);
    if profiled {
        kernels::profile::begin();
    }
    for _ in 0..steps {
        let begin = Instant::now();
        stepper.step()?;
        samples.push(1e3 * begin.elapsed().as_secs_f64());
    }
    let events = kernels::profile::end();
    let [median, p20, p80] = super::timing::quantiles(&samples);
    let report = Report {
        size: size.to_possible_value().map_or(String::new(), |value| value.get_name().into()),
        dtype: dtype.name().into(),
        threads: rayon::current_num_threads(),
        parameters: stepper.params.count().0,
        loss: stepper.loss,
        samples,
        milliseconds: [median, p20, p80],
        flops: stepper.flops,
        gflops_per_s: stepper.flops / median / 1e6,
        peak_bytes: memory::resident().map(|held| held.peak),
        pool_bytes: device.memory().peak_reserved,
        pool_growth_bytes: device.memory().peak_reserved - held,
    };
    Ok((report, events))
}

/// A model in training on one batch.
struct Stepper {
    vlm: Vlm,
    params: Params,
    optimizer: Optimizer,
    pixels: Tensor,
    text: TextBatch,
    flops: f64,
    loss: f64,
}

impl Stepper {
    fn new(size: Size, dtype: DType, device: &Device) -> Result<Stepper> {
        let (config, tokens, batch) = size.shape();
        let (vlm, params) = Vlm::build(&config, device, dtype, 0)?;
        let settings = AdamW { clip: None, ..AdamW::default() };
        let optimizer = Optimizer::new(&params, settings)?;
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let side = config.vision.image_size;
        let values: Vec<f32> = (0..batch * 3 * side * side).map(|_| rng.random_range(-1.0..1.0)).collect();
        let pixels = Tensor::from_slice(device, &values, [batch, 3, side, side])?.cast(dtype)?;
        let mut row = || {
            let ids = (0..tokens).map(|_| rng.random_range(0..config.vocab_size as u32)).collect();
            vec![Turn { ids, loss_mask: vec![true; tokens] }]
        };
        let rows: Vec<_> = (0..batch).map(|_| row()).collect();
        let flops = Flops::of_training(&config).step(Phase::Instruct, batch, batch * tokens);
        Ok(Stepper { vlm, params, optimizer, pixels, text: TextBatch::pack(&rows, 0, 1)?, flops, loss: f64::NAN })
    }

    fn step(&mut self) -> Result<()> {
        let graph = Graph::training(&self.params, 0);
        let loss = self.vlm.loss(&graph, &graph.input(self.pixels.clone()), &self.text)?.loss;
        graph.backward(&loss, self.optimizer.gradients())?;
        drop(graph);
        self.optimizer.step(&mut self.params, 1e-4)?;
        self.loss = loss.tensor().item()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_learns_and_takes_no_more_memory_than_the_first_ones() {
        let device = Device::cpu();
        let first = run(Size::S, DType::F32, &device, 1, false).unwrap().0.loss;
        let (report, events) = run(Size::S, DType::F32, &device, 4, true).unwrap();
        let flops: f64 = events.iter().map(|event| event.flops).sum();
        // Other tests compute beside this one; the patches are products of pixels, whose gradient nobody needs.
        assert!(flops > 3.9 * report.flops, "{flops} {}", report.flops);
        assert!(report.loss < first && first < 7.0, "{first} {}", report.loss);
        assert_eq!((report.samples.len(), report.pool_growth_bytes), (4, 0));
        assert!(report.flops > 1e9 && report.milliseconds[0] > 0.0);
    }
}

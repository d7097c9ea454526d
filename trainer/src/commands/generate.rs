//! `lenslet generate`: ask a trained model about an image.

use crate::cli::GenerateArgs;
use anyhow::{Context, Result};
use engine::{DType, Device};
use model::{Generation, Pretrained, Sampler, open_image, prompt};
use std::io::Write;
use std::ops::ControlFlow;

pub(super) fn run(args: GenerateArgs) -> Result<()> {
    let model = Pretrained::load(&args.model, &Device::cpu(), DType::F32)
        .with_context(|| format!("{}: not the folder of a trained model", args.model.display()))?;
    let image = open_image(&args.image)?;
    let pixels = model
        .processor
        .batch(std::slice::from_ref(&image), &Device::cpu(), DType::F32)?;
    let tokenizer = &model.tokenizer;
    let ids = prompt::<&str>(tokenizer, &[], &args.prompt)?;
    let sampler = Sampler {
        temperature: args.temperature,
        top_k: args.top_k.unwrap_or(0),
        top_p: args.top_p.unwrap_or(1.0),
        seed: args.seed,
        ..Sampler::default()
    };
    let room = model
        .vlm
        .config
        .decoder
        .max_position_embeddings
        .saturating_sub(model.vlm.config.image_tokens() + ids.len());
    let settings = Generation {
        max_new: args.max_tokens.min(room),
        stop: tokenizer.ends().to_vec(),
        sampler,
        ..Generation::default()
    };
    let mut stream = tokenizer.stream();
    let mut out = std::io::stdout().lock();
    let mut failed = None;
    model.vlm.generate(&model.params, &pixels, &ids, &settings, |token| {
        let written = stream.push(token).map_err(anyhow::Error::from).and_then(|new| {
            write!(out, "{new}")?;
            Ok(out.flush()?)
        });
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    writeln!(out, "{}", stream.finish()?)?;
    failed.map_or(Ok(()), Err)
}

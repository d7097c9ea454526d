//! Trains every case two steps, writes it, and writes what it computes afterwards: tests/round_trip.py compares that with
//! what the reference computes from the written folders.
//!
//! `cargo run --release -p lenslet-tests --example round_trip -- OUT`

use engine::{AdamW, DType, Device, Graph, Optimizer, Params};
use lenslet_tests::{Expected, cases};
use model::hf::{self, Model, Part};
use model::weights::{Entry, TensorFile, write_tensors};
use model::{GroupRule, LoraConfig, Result};
use std::path::{Path, PathBuf};

fn main() -> Result<()> {
    let out = std::env::args().nth(1).expect("an argument: the folder to write to");
    let out = Path::new(&out);
    for case in cases() {
        let name = case.file_name().expect("a name");
        let (model, mut params) = hf::load(&case, &Device::cpu(), DType::F32, false)?;
        train(&case, &model, &mut params)?;
        hf::save(&out.join(name), &model, &params)?;
        computed(&case, &model, &params, &out.join(name))?;
    }
    for (case, whole) in [("llava", true), ("llava-siglip", false)] {
        adapter(&cases()[0].with_file_name(case), &out.join(format!("{case}-lora")), whole)?;
    }
    Ok(())
}

/// Two steps on the case's own loss.
fn train(case: &Path, model: &Model, params: &mut Params) -> Result<()> {
    let expected = Expected::open(case);
    let mut optimizer = Optimizer::new(params, AdamW::default())?;
    for _ in 0..2 {
        {
            let g = Graph::training(params, 0);
            let trace = model.trace(&g, &expected.inputs(params))?;
            let loss = expected.loss(&g, model, &trace)?;
            g.backward(&loss, optimizer.gradients())?;
        }
        optimizer.step(params, 1e-2)?;
    }
    Ok(())
}

/// What the model computes from the case's inputs, and the inputs.
fn computed(case: &Path, model: &Model, params: &Params, folder: &Path) -> Result<()> {
    let g = Graph::inference(params);
    let expected = Expected::open(case);
    let trace = model.trace(&g, &expected.inputs(params))?;
    let mut entries: Vec<_> = trace.into_iter().map(|(name, x)| Entry::new(name, x.tensor().clone())).collect();
    let file = TensorFile::open(&case.join("expected.safetensors"))?;
    for input in ["input_ids", "lengths", "pixel_values"] {
        if file.shape(input).is_some() {
            entries.push(Entry::new(input, file.tensor(input, &Device::cpu())?));
        }
    }
    write_tensors(&folder.join("computed.safetensors"), &entries, &[])
}

/// The case with adapters in its decoder, which alone are trained: a PEFT folder, for the whole model or for the decoder.
fn adapter(case: &Path, out: &Path, whole: bool) -> Result<()> {
    let mut config = hf::vlm_config(case)?;
    config.lora.decoder = Some(LoraConfig {
        r: 3,
        target_modules: ["q_proj", "down_proj"].map(String::from).to_vec(),
        rslora: whole,
        ..LoraConfig::default()
    });
    let rule =
        |pattern: &str, freeze| GroupRule { pattern: pattern.into(), lr_scale: 1.0, freeze, ..GroupRule::default() };
    let rules = [rule("*lora_*", false), rule("*", true)];
    let parts: [(Part, PathBuf); 1] = [(Part::Whole, case.to_path_buf())];
    let (vlm, mut params) = hf::assemble(&config, &parts, &Device::cpu(), DType::F32, 0, (&rules, 0.0, None))?;
    let decoder = Model::Decoder(Box::new(vlm.decoder.clone()));
    let model = Model::Vlm(Box::new(vlm));
    train(case, &model, &mut params)?;
    std::fs::create_dir_all(out).expect("a folder");
    match &model {
        Model::Vlm(vlm) if whole => {
            hf::save_adapter(&out.join("adapter"), vlm, &params, hf::Base::Whole(&case.display().to_string()))?;
            computed(case, &model, &params, out)?;
        }
        Model::Vlm(vlm) => {
            hf::save_adapter(&out.join("adapter"), vlm, &params, hf::Base::Decoder("base"))?;
            computed(&case.with_file_name("llama2-grouped-tied"), &decoder, &params, out)?;
        }
        _ => {}
    }
    // The same with the adapters folded in.
    hf::save(&out.join("merged"), &model, &params)
}

//! `lenslet inspect`: what a model is made of, and everything it computes from an input.

use crate::cli::InspectArgs;
use crate::compute;
use crate::output::visible;
use crate::phases::Phase;
use crate::recipe::Recipe;
use crate::report::tree;
use crate::run_folder::new_file;
use anyhow::{Context, Result, bail};
use engine::{Device, Graph, Params, Tensor};
use model::hf::{self, Inputs, Model, Trace};
use model::weights::{Entry, write_tensors};
use model::{Chat, ImageProcessor, Message, Part, Role, Texts, Tokenizer, Turn, freezes, lora, open_image};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Likeliest next tokens shown.
const SHOWN: usize = 5;

pub(super) fn run(args: &InspectArgs) -> Result<()> {
    let device = compute::open(&args.compute.device)?;
    compute::with_threads(args.compute.threads, || look(args, &device))
}

fn look(args: &InspectArgs, device: &Device) -> Result<()> {
    args.out.as_deref().map(new_file).transpose()?;
    let folder = hf::resolve(&args.model)?;
    let (model, params) = hf::load(&folder, device, args.dtype.into(), true)?;
    let run = run_of(&folder)?;
    let frozen = run.as_ref().map(|recipe| |name: &str| is_frozen(recipe, name));
    let frozen = frozen.as_ref().map(|frozen| frozen as &dyn Fn(&str) -> bool);
    let tree = tree::tree(kind(&model), &params, frozen);
    if args.image.is_empty() && args.prompt.is_none() && args.ids.is_empty() {
        if args.out.is_some() {
            bail!("--out writes what a model computes: give it an input by --image, --prompt or --ids");
        }
        return show(&tree);
    }
    let tokenizer = Tokenizer::open(&folder);
    let inputs = inputs(args, &folder, &model, &params, &tokenizer)?;
    let graph = Graph::inference(&params);
    let trace = model.trace(&graph, &inputs)?;
    // What was asked comes first.
    next_tokens(&trace, tokenizer.ok().as_ref())?;
    for (name, x) in &trace {
        show(&summary(name, x.tensor())?)?;
    }
    if let Some(out) = &args.out {
        write(out, &trace, &inputs, &params)?;
    }
    show(&tree)
}

/// Prints lines.
fn show(lines: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{}", visible(lines))?)
}

fn kind(model: &Model) -> &'static str {
    match model {
        Model::Decoder(_) => "language model",
        Model::Dual(_) => "dual encoder",
        Model::Vlm(_) => "vision-language model",
        Model::Retrieval(..) => "image encoder and Q-Former",
    }
}

/// The recipe of the run that a folder belongs to.
fn run_of(folder: &Path) -> Result<Option<Recipe>> {
    let path = folder.join("recipe.resolved.toml");
    match path.is_file() {
        true => Ok(Some(Recipe::load(&path, &[])?)),
        false => Ok(None),
    }
}

/// Whether a run left a parameter as it was: frozen in every phase, and without an adapter that is folded into it.
fn is_frozen(recipe: &Recipe, name: &str) -> bool {
    let froze = |phase: Phase| phase.training(recipe).is_some_and(|training| freezes(&training.rules, name));
    Phase::of(recipe).all(froze) && !lora::adapts(&recipe.model.lora, name)
}

fn inputs(
    args: &InspectArgs,
    folder: &Path,
    model: &Model,
    params: &Params,
    tokenizer: &model::Result<Tokenizer>,
) -> Result<Inputs> {
    let pixels = match args.image.is_empty() {
        true => None,
        false => Some(pixels(&args.image, folder, params)?),
    };
    let mut ids = args.ids.clone();
    if let Some(prompt) = &args.prompt {
        let tokenizer = match tokenizer {
            Ok(tokenizer) => tokenizer,
            Err(error) => bail!("--prompt needs a tokenizer; --ids does without: {error}"),
        };
        ids = match model {
            Model::Vlm(_) => {
                let images = args.image.iter().map(|_| Part::Image);
                let message =
                    Message { role: Role::User, content: images.chain([Part::Text(prompt.clone())]).collect() };
                Chat::open(folder, tokenizer)?.prompt(tokenizer, &[message])?
            }
            _ => tokenizer.tokenize(prompt, true)?,
        };
    }
    if let Model::Vlm(vlm) = model {
        ids = expanded(ids, vlm.config.image_token, vlm.config.image_tokens(), args.image.len());
    }
    let texts = (!ids.is_empty()).then(|| Texts::pad(&[ids], 0));
    Ok(Inputs { pixels, texts })
}

/// Ids in which each image has all its slots; those that come with as many are left alone.
fn expanded(ids: Vec<u32>, image: Option<u32>, slots: usize, images: usize) -> Vec<u32> {
    let Some(image) = image else { return ids };
    if ids.iter().filter(|&&id| id == image).count() != images {
        return ids;
    }
    let mut turn = Turn { loss_mask: vec![false; ids.len()], ids };
    turn.expand(image, slots);
    turn.ids
}

fn pixels(files: &[PathBuf], folder: &Path, params: &Params) -> Result<Tensor> {
    let processor = ImageProcessor::open(folder)?;
    let images = files.iter().map(|file| open_image(file)).collect::<model::Result<Vec<_>>>()?;
    Ok(processor.batch(&images, params.device(), params.dtype())?)
}

/// A tensor's name, shape, mean, standard deviation and largest magnitude.
fn summary(name: &str, x: &Tensor) -> Result<String> {
    let values = x.to_f64()?;
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
    let largest = values.iter().fold(0.0, |most: f64, v| most.max(v.abs()));
    let shape = x.shape().to_string();
    let deviation = variance.sqrt();
    Ok(format!("{name:44} {shape:20} mean {mean:9.4}  std {deviation:9.4}  max {largest:9.4}"))
}

/// Prints what a language model would say next.
fn next_tokens(trace: &Trace, tokenizer: Option<&Tokenizer>) -> Result<()> {
    let Some((_, logits)) = trace.iter().find(|(name, _)| name == "logits") else {
        return Ok(());
    };
    let vocab = logits.shape().last();
    let all = logits.tensor().to_f64()?;
    let last = &all[all.len() - vocab..];
    let most = last.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = last.iter().map(|x| (x - most).exp()).sum();
    let mut order: Vec<usize> = (0..vocab).collect();
    order.sort_by(|&a, &b| last[b].total_cmp(&last[a]));
    show("next:")?;
    for &id in order.iter().take(SHOWN) {
        let token = tokenizer.and_then(|tokenizer| tokenizer.token(id as u32)).unwrap_or_default();
        let share = 100.0 * (last[id] - most).exp() / sum;
        show(&format!("  {share:6.2} %  {id:6}  {token}"))?;
    }
    Ok(())
}

/// Writes everything computed, and what it was computed from, for comparison with other implementations.
fn write(out: &Path, trace: &Trace, inputs: &Inputs, params: &Params) -> Result<()> {
    let mut entries: Vec<Entry<'_>> = trace.iter().map(|(name, x)| Entry::new(name, x.tensor().clone())).collect();
    if let Some(pixels) = &inputs.pixels {
        entries.push(Entry::new("pixel_values", pixels.clone()));
    }
    if let Some(texts) = &inputs.texts {
        let ids = Tensor::from_slice(params.device(), &texts.ids, [texts.batch, texts.tokens])?;
        entries.push(Entry::new("input_ids", ids));
    }
    write_tensors(out, &entries, &[]).context("--out")?;
    show(&format!("{} tensors in {}", entries.len(), out.display()))
}

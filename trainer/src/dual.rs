//! A dual encoder from a recipe: its data, tokenizer, image processor, training and evaluation.

use crate::checkpoint::{Place, read_numbers};
use crate::course::{Observe, Trained};
use crate::data::Pair;
use crate::data::screen::{Captions, Screen};
use crate::estimate::{few, weights_fit};
use crate::eval::contrastive::{Comparer, retrieval};
use crate::eval::{Figures, corpus};
use crate::phases::Phase;
use crate::phases::dual::Dual;
use crate::phases::fit::{Flow, fit, measure, optimizer};
use crate::preflight;
use crate::recipe::{Invalid, Precision, Recipe, Training};
use crate::session::{self, Dataset};
use anyhow::{Context, Result, bail};
use engine::{DType, Device, ParamBuilder, Params};
use model::hf::{self, Model};
use model::{DualConfig, DualEncoder, FolderPlan, ImageProcessor, Tokenizer, set_groups};
use std::path::Path;

/// A recipe with its data and its dual encoder.
pub struct DualSession {
    /// What to do.
    pub recipe: Recipe,
    /// What to train on.
    pub data: Dataset,
    /// Texts to ids.
    pub tokenizer: Tokenizer,
    /// Images to pixels.
    pub processor: ImageProcessor,
    pub model: DualEncoder,
    /// Its weights.
    pub params: Params,
}

impl DualSession {
    /// Reads the data, makes the tokenizer and a freshly initialised model on `device`.
    ///
    /// # Errors
    /// Those of data and tokenizer; a recipe without `[dual]`.
    pub fn new(recipe: Recipe, device: &Device) -> Result<DualSession> {
        DualSession::begin(recipe, device, None)
    }

    /// As [`DualSession::new`]; a run that goes on takes tokenizer and image processor from its `checkpoint`.
    pub fn begin(mut recipe: Recipe, device: &Device, checkpoint: Option<&Path>) -> Result<DualSession> {
        preflight::dual(&recipe)?;
        let processor = match checkpoint {
            Some(folder) => ImageProcessor::open(folder)?,
            None => session::processor(&recipe),
        };
        let mut data = session::dataset(&recipe, &processor)?;
        let tokenizer = match checkpoint {
            Some(folder) => Tokenizer::open(folder)?,
            None => session::tokenizer(&recipe, data.texts())?.with_ends()?,
        };
        let config = recipe.dual.as_mut().context("the recipe has no [dual]")?;
        let size = &mut config.text.vocab_size;
        *size = session::checked_vocab_size("dual.text.vocab_size", *size, tokenizer.vocab_size())?;
        let end = tokenizer.tokenize("", true)?.last().copied();
        config.text.eos_token_id = end.unwrap_or(tokenizer.specials().eos);
        data.screen(&screen(config, &tokenizer))?;
        let (model, params) = build(config, &recipe.run, device)?;
        Ok(DualSession { recipe, data, tokenizer, processor, model, params })
    }

    /// A model that this recipe made, with its own tokenizer and image processor, beside the data.
    pub fn of_trained(recipe: Recipe, folder: &Path, device: &Device, dtype: DType) -> Result<DualSession> {
        let (Model::Dual(model), params) = hf::load(folder, device, dtype, true)? else {
            bail!("{}: the recipe is a dual encoder's, but the model is none", folder.display());
        };
        let processor = ImageProcessor::open(folder)?;
        let (mut data, tokenizer) = (session::dataset(&recipe, &processor)?, Tokenizer::open(folder)?);
        data.screen(&screen(&model.config, &tokenizer))?;
        Ok(DualSession { data, tokenizer, processor, model: *model, params, recipe })
    }

    /// A few steps and the evaluation on a device that only counts memory.
    pub fn rehearse(&self, recipe: &Recipe, trace: &Device) -> Result<()> {
        let (model, mut params) = build(&self.model.config, &recipe.run, trace)?;
        if let Some(training) = Phase::Contrast.training(recipe) {
            let few = few(training);
            let mut optimizer = optimizer(&params, &few, 0)?;
            let objective = self.objective(&model, &few);
            fit(&objective, &mut params, &mut optimizer, &few, 0, |_, _, _| Ok(Flow::Continue))?;
        }
        self.evaluate_model(&model, &params).map(|_| ())
    }

    fn objective<'a>(&'a self, model: &'a DualEncoder, training: &Training) -> Dual<'a> {
        Dual {
            model,
            source: self.data.source(),
            tokenizer: &self.tokenizer,
            processor: &self.processor,
            accumulate: training.accumulate,
        }
    }

    /// The model as one that compares.
    pub fn comparer(&self) -> Comparer<'_> {
        Comparer::of_dual(&self.model, &self.params, &self.tokenizer, &self.processor)
    }

    /// Retrieval among pairs that were held out.
    pub fn evaluate(&self) -> Result<Figures> {
        self.evaluate_model(&self.model, &self.params)
    }

    fn evaluate_model(&self, model: &DualEncoder, params: &Params) -> Result<Figures> {
        let count = self.recipe.eval.limit;
        let (pairs, mut figures) = match &self.data {
            Dataset::Scenes(source) => {
                let drawn: Vec<Pair> = (0..count as u64).map(|i| source.scenes.held_out(i)).collect();
                (drawn, Figures::new())
            }
            Dataset::Corpus { heldout: Some(heldout), .. } => corpus::pairs(params, heldout, count, &self.tokenizer)?,
            Dataset::Corpus { heldout: None, .. } => return Ok(Figures::new()),
        };
        let comparer = Comparer::of_dual(model, params, &self.tokenizer, &self.processor);
        figures.extend(retrieval(&comparer, &pairs)?);
        Ok(figures)
    }
}

/// How captions are read, to find what cannot be.
pub(crate) fn screen<'t>(config: &DualConfig, tokenizer: &'t Tokenizer) -> Screen<'t> {
    Screen {
        tokenizer: Some(tokenizer),
        conversations: None,
        captions: Some(Captions::Dual(config.text.max_position_embeddings)),
    }
}

fn build(config: &DualConfig, run: &crate::recipe::Run, device: &Device) -> Result<(DualEncoder, Params)> {
    device.allow_tf32(run.dtype == Precision::Tf32);
    let mut builder = ParamBuilder::new();
    let model = DualEncoder::new(&mut builder, config)?;
    weights_fit(builder.specs(), session::dtype(run.dtype), device)?;
    let params = builder.build(device, session::dtype(run.dtype), run.seed)?;
    Ok((model, params))
}

impl Trained for DualSession {
    fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    fn params(&self) -> &Params {
        &self.params
    }

    fn params_mut(&mut self) -> &mut Params {
        &mut self.params
    }

    fn remake_on(&mut self, device: &Device) -> Result<()> {
        (self.model, self.params) = build(&self.model.config, &self.recipe.run, device)?;
        Ok(())
    }

    fn train(&mut self, phase: Phase, from: Option<(&Path, &Place)>, observe: &mut Observe<'_>) -> Result<Flow> {
        let Some(training) = phase.training(&self.recipe) else {
            return Ok(Flow::Continue);
        };
        let muon = training.muon_lr.map(|lr| lr / training.lr);
        set_groups(&mut self.params, &training.rules, training.weight_decay, muon)?;
        let seed = self.recipe.run.seed;
        let mut optimizer = optimizer(&self.params, &training, seed)?;
        if let Some((folder, place)) = from {
            read_numbers(folder, &self.recipe, place, &mut self.params, &mut optimizer)?;
        }
        let objective = Dual {
            model: &self.model,
            source: self.data.source(),
            tokenizer: &self.tokenizer,
            processor: &self.processor,
            accumulate: training.accumulate,
        };
        let measure = |params: &Params| {
            let source = self.data.held_out(&self.recipe).context("nothing is held out")?;
            let images = self.recipe.eval.limit.min(source.len());
            let held_out = Dual { source: &source, ..objective };
            measure(&held_out, params, images, training.batch_size)
        };
        let next = match from {
            Some((_, place)) if place.over => Flow::EarlyStop,
            _ => fit(&objective, &mut self.params, &mut optimizer, &training, seed, |step, params, optimizer| {
                observe(step, params, optimizer, &measure)
            })?,
        };
        if next != Flow::Interrupted {
            optimizer.swap_average(&mut self.params)?;
        }
        Ok(next)
    }

    fn folder_plan(&self) -> Result<FolderPlan> {
        let model = Model::Dual(Box::new(self.model.clone()));
        let plan = FolderPlan::of(model, &self.tokenizer, &self.processor, None);
        plan.map_err(|error| Invalid::of_model("dual", error).into())
    }
}

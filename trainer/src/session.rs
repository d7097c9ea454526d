//! From a recipe to everything a run needs: data, tokenizer, image processor, model.

use crate::data::corpus::{Corpus, Files, Sample};
use crate::data::scenes::{Scenes, vocabulary};
use crate::data::{CorpusSource, Features, Prepare, SceneSource, Source};
use crate::phases::Phase;
use crate::phases::align::Align;
use crate::phases::fit::{Step, fit};
use crate::phases::instruct::Instruct;
use crate::recipe::{self, Precision, Recipe, TokenizerKind, Training};
use crate::start::{Start, grouping};
use anyhow::{Result, ensure};
use engine::{DType, Device, Params};
use model::{Chat, ImageProcessor, Pretrained, Tokenizer, Vlm, VlmConfig, hf, set_groups};

/// What a run trains on.
pub enum Dataset {
    /// Scenes drawn on the fly.
    Scenes(SceneSource),
    /// Conversations from disk, and those kept for evaluation.
    Corpus {
        /// To train on.
        train: Box<CorpusSource>,
        /// To evaluate on.
        heldout: Option<Corpus>,
    },
}

impl Dataset {
    /// Where training samples come from.
    pub fn source(&self) -> &dyn Source {
        match self {
            Dataset::Scenes(source) => source,
            Dataset::Corpus { train, .. } => train.as_ref(),
        }
    }
}

/// A recipe with its data and its untrained model.
pub struct Session {
    /// What to do.
    pub recipe: Recipe,
    /// What to train on.
    pub data: Dataset,
    /// Tokenizer and image processor.
    pub prepare: Prepare,
    /// The model.
    pub vlm: Vlm,
    /// Its weights.
    pub params: Params,
    /// What it started from.
    pub start: Start,
}

impl Session {
    /// Reads the data, makes the tokenizer and a freshly initialised model on `device`.
    pub fn new(mut recipe: Recipe, device: &Device) -> Result<Session> {
        let start = Start::find(&mut recipe)?;
        let processor = start.processor()?.unwrap_or_else(|| processor(&recipe));
        let data = dataset(&recipe, &processor)?;
        let (tokenizer, chat) = match start.language(&mut recipe)? {
            Some(language) => language,
            None => {
                let tokenizer = tokenizer(&recipe, &data)?;
                recipe.model.vocab_size = tokenizer.vocab_size();
                let chat = Chat::own(&tokenizer)?;
                (tokenizer, chat)
            }
        };
        let (vlm, params) = build(&recipe, &start, device)?;
        Ok(Session {
            prepare: prepare(&recipe, tokenizer, processor, chat, &recipe.model),
            recipe,
            data,
            vlm,
            params,
            start,
        })
    }

    /// A model that this recipe made, with its own tokenizer and image processor, beside the data.
    pub fn of_trained(recipe: Recipe, trained: Pretrained) -> Result<Session> {
        let Pretrained {
            vlm,
            params,
            tokenizer,
            processor,
            chat,
        } = trained;
        let data = dataset(&recipe, &processor)?;
        Ok(Session {
            prepare: prepare(&recipe, tokenizer, processor, chat, &vlm.config),
            recipe,
            data,
            vlm,
            params,
            start: Start::default(),
        })
    }

    /// The same model, untrained, on another device.
    pub fn model_on(&self, device: &Device) -> Result<(Vlm, Params)> {
        build(&self.recipe, &self.start, device)
    }

    /// Trains one phase; a phase the recipe leaves out does nothing. `observe` sees every step.
    pub fn train(&mut self, phase: Phase, observe: impl FnMut(&Step, &Params) -> Result<()>) -> Result<()> {
        let Some(training) = phase.training(&self.recipe) else {
            return Ok(());
        };
        let features = self.features(phase, &training)?;
        let Session {
            recipe,
            data,
            prepare,
            vlm,
            params,
            ..
        } = self;
        train(
            recipe,
            data,
            prepare,
            vlm,
            params,
            features.as_ref(),
            phase,
            &training,
            observe,
        )
    }

    /// What a phase keeps of the images, if the recipe says that it does.
    fn features(&mut self, phase: Phase, training: &Training) -> Result<Option<Features>> {
        let wanted = self.recipe.phase2.as_ref().is_some_and(|phase2| phase2.cache_features);
        match (&self.data, phase) {
            (Dataset::Corpus { train, .. }, Phase::Instruct) if wanted => {
                group(&mut self.params, training)?;
                let features = Features::of(&self.vlm, &self.params, &self.prepare, &train.corpus)?;
                Ok(Some(features))
            }
            _ => Ok(None),
        }
    }

    /// Trains one phase of a model of this recipe with other settings.
    pub fn train_model(
        &self,
        vlm: &Vlm,
        params: &mut Params,
        phase: Phase,
        training: &Training,
        observe: impl FnMut(&Step, &Params) -> Result<()>,
    ) -> Result<()> {
        let Session {
            recipe, data, prepare, ..
        } = self;
        train(recipe, data, prepare, vlm, params, None, phase, training, observe)
    }
}

fn prepare(
    recipe: &Recipe,
    tokenizer: Tokenizer,
    processor: ImageProcessor,
    chat: Chat,
    config: &VlmConfig,
) -> Prepare {
    Prepare {
        max_tokens: recipe.data.max_tokens,
        ..Prepare::new(tokenizer, processor, chat, config)
    }
}

/// Scenes are dark: their own mean and deviation spread them over the range the encoder is sensitive to.
fn processor(recipe: &Recipe) -> ImageProcessor {
    let plain = ImageProcessor {
        size: recipe.model.vision.image_size,
        fit: recipe.data.fit,
        ..ImageProcessor::default()
    };
    match recipe.data.source {
        recipe::Source::Scenes => ImageProcessor {
            image_mean: [0.35; 3],
            image_std: [0.25; 3],
            ..plain
        },
        _ => plain,
    }
}

fn build(recipe: &Recipe, start: &Start, device: &Device) -> Result<(Vlm, Params)> {
    device.allow_tf32(recipe.run.dtype == Precision::Tf32);
    let (rules, weight_decay, muon) = grouping(recipe);
    Ok(hf::assemble(
        &recipe.model,
        &start.parts,
        device,
        dtype(recipe.run.dtype),
        recipe.run.seed,
        (&rules, weight_decay, muon),
    )?)
}

/// The model's type as the recipe names it.
pub fn dtype(precision: Precision) -> DType {
    match precision {
        Precision::F32 | Precision::Tf32 => DType::F32,
        Precision::Bf16 => DType::BF16,
    }
}

fn train(
    recipe: &Recipe,
    data: &Dataset,
    prepare: &Prepare,
    vlm: &Vlm,
    params: &mut Params,
    features: Option<&Features>,
    phase: Phase,
    training: &Training,
    observe: impl FnMut(&Step, &Params) -> Result<()>,
) -> Result<()> {
    group(params, training)?;
    let (source, seed) = (data.source(), recipe.run.seed);
    let align = recipe.phase1.as_ref().map(|phase| Align {
        vlm,
        source,
        prepare,
        phase,
        seed,
    });
    match (phase, align, &recipe.phase2) {
        (Phase::Align, Some(align), _) => fit(&align, params, training, seed ^ 1, observe),
        (Phase::Instruct, align, Some(phase)) => {
            let instruct = Instruct {
                vlm,
                source,
                prepare,
                phase,
                align,
                features,
            };
            fit(&instruct, params, training, seed ^ 2, observe)
        }
        _ => Ok(()),
    }
}

/// Groups the parameters as a phase trains them.
fn group(params: &mut Params, training: &Training) -> Result<()> {
    let muon = training.muon_lr.map(|lr| lr / training.lr);
    Ok(set_groups(params, &training.rules, training.weight_decay, muon)?)
}

/// Whether the model takes images within the text.
fn weaves(recipe: &Recipe) -> bool {
    recipe.model.image_token.is_some() || recipe.pretrained.decoder.is_some()
}

fn dataset(recipe: &Recipe, processor: &ImageProcessor) -> Result<Dataset> {
    let packing = recipe.phase2.as_ref().is_some_and(|phase| phase.packing);
    ensure!(!packing || weaves(recipe), "{}", Prepare::NO_PACKING);
    match recipe.data.train() {
        None => Ok(scenes(recipe, processor)),
        Some(files) => corpus(recipe, files, processor),
    }
}

fn scenes(recipe: &Recipe, processor: &ImageProcessor) -> Dataset {
    let (data, phase) = (&recipe.data, recipe.phase2.as_ref());
    let even = crate::data::scenes::QuestionWeights::EVEN;
    Dataset::Scenes(SceneSource {
        scenes: Scenes {
            seed: recipe.run.seed,
            image_size: data.image_size.unwrap_or(processor.size) as u32,
            world: data.world.unwrap_or_default(),
        },
        turns: phase.map_or(1, |p| p.turns),
        independent: phase.is_some_and(|p| p.independent_turns),
        start: phase.map_or(even, |p| p.questions_start),
        end: phase.map_or(even, |p| p.questions_end),
        until: phase.map_or(1.0, |p| p.questions_until),
    })
}

fn corpus(recipe: &Recipe, train: Files<'_>, processor: &ImageProcessor) -> Result<Dataset> {
    let (data, phase) = (&recipe.data, recipe.phase2.as_ref());
    let several = weaves(recipe) && recipe.phase1.is_none() && !phase.is_some_and(|phase| phase.independent_turns);
    let train = Corpus::load(&Files { several, ..train }, processor)?;
    // Held-out questions are asked of one image each.
    let heldout = data
        .heldout()
        .map(|files| Corpus::load(&files, processor))
        .transpose()?;
    let group = phase.filter(|_| data.group_by_length).map(|phase| phase.batch_size);
    Ok(Dataset::Corpus {
        train: Box::new(CorpusSource::new(train, recipe.run.seed, group)),
        heldout,
    })
}

/// The most frequent words first, ties by the alphabet.
fn frequent_words<'t>(texts: impl Iterator<Item = &'t str>, most: usize) -> Vec<String> {
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for text in texts {
        for word in text.to_lowercase().split_whitespace() {
            *counts.entry(word.to_string()).or_default() += 1;
        }
    }
    let mut words: Vec<(String, usize)> = counts.into_iter().collect();
    words.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    words.into_iter().take(most).map(|(word, _)| word).collect()
}

fn tokenizer(recipe: &Recipe, data: &Dataset) -> Result<Tokenizer> {
    let settings = &recipe.tokenizer;
    if let (TokenizerKind::File, Some(path)) = (settings.kind, &settings.path) {
        return Ok(Tokenizer::load(path)?);
    }
    let Dataset::Corpus { train, .. } = data else {
        return Ok(Tokenizer::word_level(vocabulary())?);
    };
    let texts = train.corpus.samples.iter().flat_map(Sample::texts);
    Ok(match settings.kind {
        TokenizerKind::Bpe => Tokenizer::train_bpe(texts, settings.size)?,
        _ => Tokenizer::word_level(frequent_words(texts, settings.size).iter().map(String::as_str))?,
    })
}

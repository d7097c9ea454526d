//! From a recipe to everything a run needs: data, tokenizer, image processor, model.

use crate::checkpoint::{Place, read_numbers};
use crate::course::{Observe, Trained};
use crate::data::corpus::{Corpus, Files, Sample};
use crate::data::record::Turn;
use crate::data::scenes::{QuestionWeights, Scenes, vocabulary};
use crate::data::screen::{Captions, Entry, Screen, Screened};
use crate::data::{Conversation, CorpusSource, Features, Pair, Prepare, SceneSource, Source};
use crate::estimate::weights_fit;
use crate::phases::Phase;
use crate::phases::align::Align;
use crate::phases::fit::{Flow, Step, fit, measure, optimizer};
use crate::phases::instruct::Instruct;
use crate::preflight;
use crate::pretrained_parts::{PretrainedParts, grouping};
use crate::recipe::{self, Invalid, Precision, Recipe, TokenizerKind, Training};
use anyhow::{Context, Result, bail, ensure};
use engine::{DType, Device, Optimizer, ParamBuilder, Params};
use model::{Chat, DualConfig, FolderPlan, ImageProcessor, Pretrained, Tokenizer, Vlm, VlmConfig, hf, set_groups};
use std::path::Path;

/// What a run trains on.
pub enum Dataset {
    /// Scenes drawn on the fly.
    Scenes(SceneSource),
    /// Conversations from disk, and those kept for evaluation.
    Corpus {
        train: Box<CorpusSource>,
        /// To evaluate on.
        heldout: Option<Box<Corpus>>,
    },
}

/// Scenes that are looked at before the first step.
const SCENES: usize = 64;

impl Dataset {
    /// Leaves out what cannot be trained on or measured, and says what is lost of the rest; of scenes the first are looked at.
    ///
    /// # Errors
    /// When too many records are bad, or none is left.
    pub fn screen(&mut self, screen: &Screen<'_>) -> Result<()> {
        match self {
            Dataset::Corpus { train, heldout } => {
                train.screen(screen)?;
                heldout.iter_mut().try_for_each(|heldout| heldout.screen(screen))
            }
            Dataset::Scenes(source) => screen_scenes(source, screen),
        }
    }

    /// What is said of the images to train on; nothing where scenes are drawn.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        let samples = match self {
            Dataset::Corpus { train, .. } => &train.corpus.samples[..],
            Dataset::Scenes(_) => &[],
        };
        samples.iter().flat_map(Sample::texts)
    }

    /// Where training samples come from.
    pub fn source(&self) -> &dyn Source {
        match self {
            Dataset::Scenes(source) => source,
            Dataset::Corpus { train, .. } => train.as_ref(),
        }
    }
}

/// What was kept from training, as a source: always the same, in the same order.
pub struct HeldOut<'d> {
    data: &'d Dataset,
    weights: QuestionWeights,
}

impl Dataset {
    /// What was kept from training, if anything was.
    pub fn held_out(&self, recipe: &Recipe) -> Option<HeldOut<'_>> {
        let phase = recipe.phase2.as_ref();
        let weights = phase.map_or(QuestionWeights::EVEN, |phase| phase.questions_end);
        match self {
            Dataset::Corpus { heldout: None, .. } => None,
            data => Some(HeldOut { data, weights }),
        }
    }
}

impl HeldOut<'_> {
    /// How many there are; scenes are as many as are wanted.
    pub fn len(&self) -> usize {
        match self.data {
            Dataset::Corpus { heldout: Some(corpus), .. } => corpus.samples.len(),
            _ => usize::MAX,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn sample(&self, index: u64) -> Result<(&Corpus, &Sample)> {
        let Dataset::Corpus { heldout: Some(corpus), .. } = self.data else {
            bail!("nothing is held out");
        };
        let number = index as usize % corpus.samples.len().max(1);
        let (_, sample, _) = corpus.readable(number)?;
        Ok((corpus, sample))
    }
}

impl Source for HeldOut<'_> {
    fn pair(&self, index: u64) -> Result<Pair> {
        match self.data {
            Dataset::Scenes(source) => Ok(source.scenes.held_out(index)),
            Dataset::Corpus { .. } => self.sample(index).and_then(|(corpus, sample)| corpus.pair(sample)),
        }
    }

    fn conversation(&self, index: u64, _: f64) -> Result<Conversation> {
        match self.data {
            Dataset::Scenes(source) => {
                let SceneSource { turns, independent, .. } = source;
                Ok(source.scenes.held_out_talk(index, &self.weights, *turns, *independent))
            }
            Dataset::Corpus { .. } => self.sample(index).and_then(|(corpus, sample)| corpus.conversation(sample)),
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
    pub start: PretrainedParts,
}

impl Session {
    /// Reads the data, makes the tokenizer and a freshly initialised model on `device`.
    pub fn new(recipe: Recipe, device: &Device) -> Result<Session> {
        Session::begin(recipe, device, None)
    }

    /// As [`Session::new`]; a run that goes on takes tokenizer, chat template and image processor from its `checkpoint`, not
    /// from what they were made of.
    pub fn begin(mut recipe: Recipe, device: &Device, checkpoint: Option<&Path>) -> Result<Session> {
        let start = PretrainedParts::find(&mut recipe)?;
        preflight::vlm(&recipe)?;
        let processor = match checkpoint {
            Some(folder) => ImageProcessor::open(folder)?,
            None => start.processor(&recipe.model.vision)?.unwrap_or_else(|| processor(&recipe)),
        };
        let mut data = dataset(&recipe, &processor)?;
        let (tokenizer, chat) = language(&mut recipe, &start, data.texts(), checkpoint)?;
        let prepare = prepare(&recipe, tokenizer, processor, chat, &recipe.model);
        data.screen(&screen(&recipe, &prepare))?;
        let (vlm, params) = build(&recipe, &start, device)?;
        Ok(Session { prepare, recipe, data, vlm, params, start })
    }

    /// A model that this recipe made, with its own tokenizer and image processor, beside the data.
    pub fn of_trained(recipe: Recipe, trained: Pretrained) -> Result<Session> {
        let Pretrained { vlm, params, tokenizer, processor, chat } = trained;
        let mut data = dataset(&recipe, &processor)?;
        let prepare = prepare(&recipe, tokenizer, processor, chat, &vlm.config);
        data.screen(&screen(&recipe, &prepare))?;
        Ok(Session { prepare, recipe, data, vlm, params, start: PretrainedParts::default() })
    }

    /// The same model, untrained, on another device.
    pub fn model_on(&self, device: &Device) -> Result<(Vlm, Params)> {
        build(&self.recipe, &self.start, device)
    }

    /// The steps of a phase from where the optimiser is.
    fn fit(
        &mut self,
        phase: Phase,
        training: &Training,
        optimizer: &mut Optimizer,
        observe: &mut Observe<'_>,
    ) -> Result<Flow> {
        let features = self.features(phase)?;
        let Session { recipe, data, prepare, vlm, params, .. } = self;
        let (recipe, data, prepare, vlm) = (&*recipe, &*data, &*prepare, &*vlm);
        let measure = |params: &Params| held_out_loss(recipe, data, prepare, vlm, params, (phase, training));
        let model = (vlm, params, optimizer);
        let see =
            |step: &Step, params: &mut Params, optimizer: &mut Optimizer| observe(step, params, optimizer, &measure);
        train(recipe, data, prepare, model, features.as_ref(), (phase, training), see)
    }

    /// What a phase keeps of the images, if the recipe says that it does.
    fn features(&self, phase: Phase) -> Result<Option<Features>> {
        let wanted = self.recipe.phase2.as_ref().is_some_and(|phase2| phase2.cache_features);
        match (&self.data, phase) {
            (Dataset::Corpus { train, .. }, Phase::Instruct) if wanted => {
                let features = Features::of(&self.vlm, &self.params, &self.prepare, &train.corpus)?;
                Ok(Some(features))
            }
            _ => Ok(None),
        }
    }

    /// Trains a model of this recipe in a phase of another with other settings.
    pub fn train_model(
        &self,
        vlm: &Vlm,
        params: &mut Params,
        recipe: &Recipe,
        phase: Phase,
        training: &Training,
    ) -> Result<Flow> {
        let Session { data, prepare, .. } = self;
        group(params, training)?;
        let mut optimizer = optimizer(params, training, seed_of(phase, recipe))?;
        let model = (vlm, params, &mut optimizer);
        let see = |_: &Step, _: &mut Params, _: &mut Optimizer| Ok(Flow::Continue);
        train(recipe, data, prepare, model, None, (phase, training), see)
    }
}

/// What a recipe's run reads its records with, without its model.
pub(crate) enum Reading {
    /// A vision-language model's.
    Vlm(Box<Recipe>, Box<Prepare>),
    /// A dual encoder's.
    Dual(Box<DualConfig>, Box<Tokenizer>),
}

impl Reading {
    /// Of a run on these texts.
    pub(crate) fn of<'t>(mut recipe: Recipe, texts: impl Iterator<Item = &'t str>) -> Result<Reading> {
        if let Some(dual) = &recipe.dual {
            let tokenizer = tokenizer(&recipe, texts)?.with_ends()?;
            return Ok(Reading::Dual(Box::new(dual.clone()), Box::new(tokenizer)));
        }
        let start = PretrainedParts::find(&mut recipe)?;
        let processor = start.processor(&recipe.model.vision)?;
        let processor = processor.unwrap_or_else(|| self::processor(&recipe));
        let (tokenizer, chat) = language(&mut recipe, &start, texts, None)?;
        let prepare = prepare(&recipe, tokenizer, processor, chat, &recipe.model);
        Ok(Reading::Vlm(Box::new(recipe), Box::new(prepare)))
    }

    /// How records are read.
    pub(crate) fn screen(&self) -> Screen<'_> {
        match self {
            Reading::Vlm(recipe, prepare) => screen(recipe, prepare),
            Reading::Dual(config, tokenizer) => crate::dual::screen(config, tokenizer),
        }
    }
}

/// Tokenizer and chat template of a run on these texts; those of its `checkpoint` where it goes on. What they say of the model
/// is filled in.
fn language<'t>(
    recipe: &mut Recipe,
    start: &PretrainedParts,
    texts: impl Iterator<Item = &'t str>,
    checkpoint: Option<&Path>,
) -> Result<(Tokenizer, Chat)> {
    if let Some(language) = start.language(recipe, checkpoint)? {
        return Ok(language);
    }
    let tokenizer = match checkpoint {
        Some(folder) => Tokenizer::open(folder)?,
        None => tokenizer(recipe, texts)?,
    };
    let size = &mut recipe.model.vocab_size;
    *size = checked_vocab_size("model.vocab_size", *size, tokenizer.vocab_size())?;
    let chat = Chat::own(&tokenizer)?;
    Ok((tokenizer, chat))
}

/// How a recipe's records are read, to find what cannot be.
fn screen<'p>(recipe: &Recipe, prepare: &'p Prepare) -> Screen<'p> {
    let qformer = recipe.model.qformer.as_ref().filter(|_| recipe.phase1.is_some());
    Screen {
        tokenizer: Some(&prepare.tokenizer),
        conversations: recipe.phase2.as_ref().map(|phase| (prepare, phase.layout())),
        captions: qformer.map(|qformer| Captions::QFormer(qformer.max_position_embeddings)),
    }
}

/// What is cut off scenes' conversations and captions; fails where no token to predict is left.
fn screen_scenes(source: &SceneSource, screen: &Screen<'_>) -> Result<()> {
    let turn = |(question, answer)| Turn { question, answer };
    let talk = |i| Ok(source.conversation(i, 0.0)?.turns.into_iter().map(turn).collect());
    let caption = |i| Ok(vec![turn((String::new(), source.pair(i)?.caption))]);
    let [mut talks, mut captions] = [*screen; 2];
    (talks.captions, captions.conversations) = (None, None);
    type Turns<'t> = &'t dyn Fn(u64) -> Result<Vec<Turn>>;
    for (screen, wanted, turns) in
        [(talks, talks.conversations.is_some(), &talk as Turns<'_>), (captions, captions.captions.is_some(), &caption)]
    {
        if !wanted {
            continue;
        }
        let turns = (0..SCENES as u64).map(turns).collect::<Result<Vec<_>>>()?;
        let entry = |turns| Entry { turns, images: 1, ..Entry::default() };
        let entries: Vec<Entry<'_>> = turns.iter().map(|turns| entry(turns)).collect();
        let Screened { kept, bad, lost } = screen.all(Path::new("scenes"), &entries)?;
        bad.check(SCENES, 0.0)?;
        let lines = lost.lines().join("\n");
        ensure!(kept.contains(&true), "none of the first {SCENES} scenes can be trained on\n{lines}");
        if !lines.is_empty() {
            outln!("of the first {SCENES} scenes: {lines}");
        }
    }
    Ok(())
}

fn prepare(
    recipe: &Recipe,
    tokenizer: Tokenizer,
    processor: ImageProcessor,
    chat: Chat,
    config: &VlmConfig,
) -> Prepare {
    Prepare { max_tokens: recipe.data.max_tokens, ..Prepare::new(tokenizer, processor, chat, config) }
}

impl Trained for Session {
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
        (self.vlm, self.params) = self.model_on(device)?;
        Ok(())
    }

    fn vlm(&self) -> Option<&VlmConfig> {
        Some(&self.vlm.config)
    }

    fn train(&mut self, phase: Phase, from: Option<(&Path, &Place)>, observe: &mut Observe<'_>) -> Result<Flow> {
        let Some(training) = phase.training(&self.recipe) else {
            return Ok(Flow::Continue);
        };
        group(&mut self.params, &training)?;
        let mut optimizer = optimizer(&self.params, &training, seed_of(phase, &self.recipe))?;
        if let Some((folder, place)) = from {
            read_numbers(folder, &self.recipe, place, &mut self.params, &mut optimizer)?;
        }
        let next = match from {
            Some((_, place)) if place.over => Flow::EarlyStop,
            _ => self.fit(phase, &training, &mut optimizer, observe)?,
        };
        if next != Flow::Interrupted {
            optimizer.swap_average(&mut self.params)?;
        }
        Ok(next)
    }

    fn folder_plan(&self) -> Result<FolderPlan> {
        let (model, parts) = (hf::Model::Vlm(Box::new(self.vlm.clone())), &self.prepare);
        let plan = FolderPlan::of(model, &parts.tokenizer, &parts.processor, Some(&parts.chat));
        plan.map_err(|error| Invalid::of_model("model", error).into())
    }
}

/// The size of a vocabulary, which follows from its tokenizer; fails where `said` is another and not 0.
pub(crate) fn checked_vocab_size(key: &str, said: usize, found: usize) -> Result<usize> {
    if said != 0 && said != found {
        return Err(Invalid::new(key, format!("{said} here, but the tokenizer has {found} ids; leave it out")).into());
    }
    Ok(found)
}

/// Scenes are dark: their own mean and deviation spread them over the range the encoder is sensitive to.
pub(crate) fn processor(recipe: &Recipe) -> ImageProcessor {
    let vision = recipe.dual.as_ref().map_or(&recipe.model.vision, |dual| &dual.vision);
    let plain = ImageProcessor { size: vision.image_size, fit: recipe.data.fit, ..ImageProcessor::default() };
    match recipe.data.source {
        recipe::Source::Scenes => ImageProcessor { image_mean: [0.35; 3], image_std: [0.25; 3], ..plain },
        _ => plain,
    }
}

fn build(recipe: &Recipe, start: &PretrainedParts, device: &Device) -> Result<(Vlm, Params)> {
    device.allow_tf32(recipe.run.dtype == Precision::Tf32);
    let mut builder = ParamBuilder::new();
    Vlm::new(&mut builder, &recipe.model)?;
    weights_fit(builder.specs(), dtype(recipe.run.dtype), device)?;
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

/// The phases draw from different seeds.
fn seed_of(phase: Phase, recipe: &Recipe) -> u64 {
    recipe.run.seed
        ^ match phase {
            Phase::Contrast => 0,
            Phase::Align => 1,
            Phase::Instruct => 2,
        }
}

fn train(
    recipe: &Recipe,
    data: &Dataset,
    prepare: &Prepare,
    (vlm, params, optimizer): (&Vlm, &mut Params, &mut Optimizer),
    features: Option<&Features>,
    (phase, training): (Phase, &Training),
    observe: impl FnMut(&Step, &mut Params, &mut Optimizer) -> Result<Flow>,
) -> Result<Flow> {
    let source = data.source();
    let align = recipe.phase1.as_ref().map(|phase| Align { vlm, source, prepare, phase, seed: recipe.run.seed });
    let seed = seed_of(phase, recipe);
    match (phase, align, &recipe.phase2) {
        (Phase::Align, Some(align), _) => fit(&align, params, optimizer, training, seed, observe),
        (Phase::Instruct, align, Some(phase)) => {
            let instruct = Instruct { vlm, source, prepare, phase, align, features };
            fit(&instruct, params, optimizer, training, seed, observe)
        }
        _ => Ok(Flow::Continue),
    }
}

/// A phase's loss on what was kept from training.
fn held_out_loss(
    recipe: &Recipe,
    data: &Dataset,
    prepare: &Prepare,
    vlm: &Vlm,
    params: &Params,
    (phase, training): (Phase, &Training),
) -> Result<f64> {
    let source = data.held_out(recipe).context("nothing is held out")?;
    let images = recipe.eval.limit.min(source.len());
    let size = training.batch_size;
    match (phase, &recipe.phase1, &recipe.phase2) {
        (Phase::Align, Some(phase), _) => {
            let align = Align { vlm, source: &source, prepare, phase, seed: recipe.run.seed };
            measure(&align, params, images, size)
        }
        (Phase::Instruct, _, Some(phase)) => {
            let instruct = Instruct { vlm, source: &source, prepare, phase, align: None, features: None };
            measure(&instruct, params, images, size)
        }
        _ => bail!("{} has no such loss", phase.name()),
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

pub(crate) fn dataset(recipe: &Recipe, processor: &ImageProcessor) -> Result<Dataset> {
    let packing = recipe.phase2.as_ref().is_some_and(|phase| phase.packing);
    if packing && !weaves(recipe) {
        return Err(Invalid::new("phase2.packing", Prepare::NO_PACKING).into());
    }
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
        independent: recipe.independent_turns(),
        start: phase.map_or(even, |p| p.questions_start),
        end: phase.map_or(even, |p| p.questions_end),
        until: phase.map_or(1.0, |p| p.questions_until),
    })
}

fn corpus(recipe: &Recipe, train: Files<'_>, processor: &ImageProcessor) -> Result<Dataset> {
    let (data, phase) = (&recipe.data, recipe.phase2.as_ref());
    let several = weaves(recipe) && recipe.phase1.is_none() && !recipe.independent_turns();
    let train = Corpus::load(&Files { several, ..train }, processor)?;
    let heldout =
        data.heldout().map(|files| Corpus::load(&Files { several, ..files }, processor).map(Box::new)).transpose()?;
    let group = phase.filter(|_| data.group_by_length).map(|phase| phase.batch_size);
    Ok(Dataset::Corpus { train: Box::new(CorpusSource::new(train, recipe.run.seed, group)), heldout })
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

/// The tokenizer that a recipe describes, made of the texts to train on where it is its own.
pub(crate) fn tokenizer<'t>(recipe: &Recipe, texts: impl Iterator<Item = &'t str>) -> Result<Tokenizer> {
    let settings = &recipe.tokenizer;
    if let (TokenizerKind::File, Some(path)) = (settings.kind, &settings.path) {
        return Ok(Tokenizer::load(path)?);
    }
    Ok(match settings.kind {
        _ if recipe.data.source == recipe::Source::Scenes => Tokenizer::word_level(vocabulary())?,
        TokenizerKind::Bpe => Tokenizer::train_bpe(texts, settings.size)?,
        _ => Tokenizer::word_level(frequent_words(texts, settings.size).iter().map(String::as_str))?,
    })
}

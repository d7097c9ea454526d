//! The command line: one verb each, kebab-case flags.

use crate::bench::Grid;
use crate::bench::step::Size;
use crate::data::filter::likeness::MAX_HAMMING;
use crate::data::formats::Format;
use crate::eval::tasks::Name as Task;
use clap::{Args, Parser, Subcommand, ValueEnum};
use engine::DType;
use std::path::PathBuf;

/// Trains small vision-language models from raw pixels to answers.
#[derive(Debug, Parser)]
#[command(name = "lenslet", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Train on built-in scenes in about three minutes and show what was learned.
    Demo(DemoArgs),
    /// Train as a recipe says.
    Train(TrainArgs),
    /// Have a model answer once, about images or without any.
    Generate(GenerateArgs),
    /// Talk with a model about images in the terminal.
    Chat(ChatArgs),
    /// Show what a model is made of and what it computes.
    Inspect(InspectArgs),
    /// Measure a trained model.
    Eval(EvalArgs),
    /// Look through a data set, or keep the good part of it.
    #[command(subcommand)]
    Data(DataVerb),
    /// What a recipe may say.
    #[command(subcommand)]
    Recipe(RecipeVerb),
    /// Make the page of a run again from the files in its folder.
    Report(ReportArgs),
    /// Put runs side by side: recipes, curves, evaluations and answers on one page.
    Compare(CompareArgs),
    /// Time the kernels on a device beside what it is capable of.
    Bench(BenchArgs),
    /// List the CUDA kernels, compile them, or test them against plain f64 loops.
    #[command(subcommand)]
    Kernels(KernelsVerb),
    /// Print version, processor, memory and what was found of CUDA.
    Env,
}

/// `lenslet recipe`: what a recipe may say.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum RecipeVerb {
    /// List the keys of a recipe with type, default and meaning.
    Keys {
        /// Only this section or key, as in `phase2` or `phase2.lr`.
        section: Option<String>,
        /// Print the page docs/recipe.md.
        #[arg(long, conflicts_with = "section")]
        markdown: bool,
    },
}

/// `lenslet data`: what is in a data set.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum DataVerb {
    /// Draw a small data set to begin with: digits, arrows and bar charts with captions and questions, and a recipe for it.
    Example(ExampleArgs),
    /// Read everything once, images too: counts, sizes, lengths, broken and double items. Fails where too much is broken.
    Check(CheckArgs),
    /// Write the good part of a data set to a new file, with a page that shows what was left out and why.
    Filter(FilterArgs),
}

/// `lenslet data example`: draw a small data set.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct ExampleArgs {
    /// The folder to write; must be new or empty.
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Pictures to draw; every fifth is held out.
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(30..=100_000))]
    pub images: u32,
    /// Seed of the pictures.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// Which data set.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct DataArgs {
    /// A recipe: the data set it trains on.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["source", "path", "images", "split", "split_field"])]
    pub recipe: Option<PathBuf>,
    /// Change a value of the recipe, as in `--set data.max_bad=0.1`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", requires = "recipe")]
    pub set: Vec<String>,
    /// How the data set is kept, in place of a recipe.
    #[arg(long, value_enum, requires = "path")]
    pub source: Option<Format>,
    /// The records: a file, the folder of classes, or tar shards (`shard-{000..003}.tar`).
    #[arg(long, requires = "source")]
    pub path: Option<PathBuf>,
    /// The folder, zip or tar of images, where they do not come with the records.
    #[arg(long, requires = "source")]
    pub images: Option<PathBuf>,
    /// Only records of this split.
    #[arg(long, requires = "source")]
    pub split: Option<String>,
    /// The field that names a record's split; `split` where left out.
    #[arg(long, value_name = "FIELD", requires = "split")]
    pub split_field: Option<String>,
}

/// `lenslet data check`: read a data set once.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct CheckArgs {
    /// Which data set.
    #[command(flatten)]
    pub data: DataArgs,
    /// Count tokens, too: a tokenizer.json, a model's folder, or `owner/name` in the hub's cache.
    #[arg(long, value_name = "MODEL")]
    pub tokenizer: Option<String>,
    /// The share of broken records above which the check fails; the recipe's, or 0.01, where left out.
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub max_bad: Option<f64>,
    /// Write the figures to this file, too.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Threads; one per core where left out.
    #[arg(long, value_name = "N", value_parser = a_few)]
    pub threads: Option<usize>,
}

/// `lenslet data filter`: keep the good part of a data set. Broken images always go; the rest as asked.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct FilterArgs {
    /// Which data set.
    #[command(flatten)]
    pub data: DataArgs,
    /// The records kept: JSON lines in the input's format, LLaVA's where that is none.
    #[arg(long, value_name = "FILE.jsonl")]
    pub out: PathBuf,
    /// The page of what was left out; `report.html` beside `--out` where left out.
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// A CLIP or SigLIP that tells how well image and text go together: a folder, or `owner/name` in the hub's cache.
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Keep what has at least this cosine of image and text.
    #[arg(long, value_name = "X", requires = "model", allow_negative_numbers = true, value_parser = finite)]
    pub min_similarity: Option<f64>,
    /// Keep this share of what else remains, the best by similarity.
    #[arg(long, value_name = "SHARE", requires = "model", value_parser = probability)]
    pub keep_share: Option<f64>,
    /// Leave out images that look like one before: their 64-bit hashes differ in at most N bits (0 to 16).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_HAMMING)))]
    pub max_hamming: Option<u32>,
    /// Leave out texts that share at least this part of all their words with one before.
    #[arg(long, value_name = "SHARE", value_parser = probability)]
    pub max_overlap: Option<f64>,
    /// Leave out what says fewer words.
    #[arg(long, value_name = "N")]
    pub min_words: Option<usize>,
    /// Leave out what says more words.
    #[arg(long, value_name = "N")]
    pub max_words: Option<usize>,
    /// Leave out what has a smaller share of words that carry content and are no repetition (English).
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub min_density: Option<f64>,
    /// Where to compute.
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// `lenslet report`: a run on one page.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct ReportArgs {
    /// The run's folder; `report.html` is written there. The run may be under way.
    #[arg(long, value_name = "DIR")]
    pub run: PathBuf,
}

/// `lenslet compare`: runs side by side.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct CompareArgs {
    /// The runs' folders, two or more. Runs may be under way.
    #[arg(value_name = "RUN", required = true)]
    pub runs: Vec<PathBuf>,
    /// The page.
    #[arg(long, value_name = "FILE.html", default_value = "compare.html")]
    pub out: PathBuf,
}

/// `lenslet bench`: time the kernels.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    /// What else is timed.
    #[command(subcommand)]
    pub verb: Option<BenchVerb>,
    /// Kernel families; all where left out.
    pub families: Vec<String>,
    /// Which shapes.
    #[arg(long, value_enum, default_value_t = Grid::Small)]
    pub grid: Grid,
    /// Write the figures to this file, too.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Time PyTorch's kernels in turn with ours: a Python in which `import torch` works.
    #[arg(long, value_name = "PYTHON")]
    pub reference: Option<PathBuf>,
    /// Where to compute.
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// `lenslet bench step`: whole training steps.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum BenchVerb {
    /// Time whole training steps of a model of one of three sizes, random weights and data.
    Step(StepArgs),
}

/// `lenslet bench step`: which model, and in what.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct StepArgs {
    /// Which model: S (128 wide, 32 images), M (256 wide, 16 images) or L (ViT-B/16 and SmolLM2-135M, one image).
    #[arg(long, value_enum)]
    pub size: Size,
    /// What to compute in.
    #[arg(long, value_enum, default_value_t = WeightType::F32)]
    pub dtype: WeightType,
    /// Steps to time.
    #[arg(long, default_value_t = 20, value_parser = at_least_one)]
    pub steps: usize,
    /// Print the figures as JSON.
    #[arg(long)]
    pub json: bool,
    /// Print where the time goes, kernel by kernel, and write a trace for Chrome's viewer to this file. On the CPU.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub profile: Option<PathBuf>,
    /// Where to compute.
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// `lenslet kernels`: the CUDA kernels themselves.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum KernelsVerb {
    /// Print families, specialisations and files.
    List,
    /// Compile every specialisation and print registers, shared memory and spills; needs NVRTC and no GPU.
    Check {
        /// Architectures to compile for.
        #[arg(long, value_name = "ARCH", value_delimiter = ',', default_value = "sm_80,sm_90a,sm_100a")]
        arch: Vec<String>,
    },
    /// Run the table of ops on a device and compare with plain f64 loops.
    Test(KernelsTestArgs),
    /// Print what every PTX instruction the kernels use answers on a device; a GPU's answers belong into
    /// kernels/src/gpu/golden/<architecture>.txt, against which the emulator is tested.
    Golden {
        /// `cuda:N` or `emulated`.
        #[arg(long, default_value = "cuda:0")]
        device: String,
    },
}

/// `lenslet kernels test`: ops on a device against plain loops.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct KernelsTestArgs {
    /// `cpu`, `cuda:N`, `emulated` or `emulated:check`.
    #[arg(long, default_value = "emulated")]
    pub device: String,
    /// Order in which the emulator runs threads; 0 is in order, 1 in reverse, others are random.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// How many shapes.
    #[arg(long, value_enum, default_value_t = TestGrid::Small)]
    pub grid: TestGrid,
    /// Every N-th case from the I-th on, to share the work among processes.
    #[arg(long, value_name = "I/N", value_parser = part)]
    pub part: Option<(usize, usize)>,
    /// Kernel families or ops; all where left out.
    pub families: Vec<String>,
}

/// How many shapes `lenslet kernels test` goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TestGrid {
    /// The table of ops, as CI runs it on the emulator.
    Small,
    /// The table and the shapes of real models, for a GPU.
    Full,
}

/// `lenslet demo`: train on built-in scenes, evaluate, show what was learned.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct DemoArgs {
    /// Seed of everything random.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    pub seed: u64,
    /// Stop each phase after so many steps.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub max_steps: Option<usize>,
    /// Run folder; must not exist yet.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Start each of a GPU's kernels by itself, to compare: otherwise a step that has come before is one CUDA graph.
    #[arg(long)]
    pub no_graph: bool,
    /// Where to compute.
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// `lenslet train`: run a recipe.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct TrainArgs {
    /// The recipe; with --resume and --out, that of the run where left out.
    #[arg(long, value_name = "FILE", required_unless_present = "resume")]
    pub recipe: Option<PathBuf>,
    /// Go on with a run that was stopped or died: from its `latest` whole checkpoint, or from the one of this number.
    #[arg(long, value_name = "WHERE", conflicts_with = "dry_run")]
    pub resume: Option<String>,
    /// With --resume: go on though records, images, the tokenizer's or pretrained files are not what they were.
    #[arg(long, requires = "resume")]
    pub accept_changed_data: bool,
    /// Change a value of the recipe, as in `--set phase1.lr=1e-3`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Run folder in place of `runs/<name>`; must not exist yet.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Device in place of the recipe's.
    #[arg(long)]
    pub device: Option<String>,
    /// Make batches as large as fit into the memory that is free, with as many images a step: what is taken from a batch is
    /// accumulated, which changes nothing that is learned.
    #[arg(long, conflicts_with_all = ["resume", "dry_run"])]
    pub auto_batch: bool,
    /// Write down where the time of ten steps of each phase goes, in the run's folder: `profile/PHASE.txt`, kernel by kernel,
    /// and `profile/PHASE.json` for Chrome's viewer (chrome://tracing, ui.perfetto.dev).
    #[arg(long)]
    pub profile: bool,
    /// Start each of a GPU's kernels by itself, to compare: otherwise a step that has come before is one CUDA graph.
    #[arg(long)]
    pub no_graph: bool,
    /// Check everything and print parameters, memory, steps and one batch; train nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// `lenslet generate`: have a model answer once.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct GenerateArgs {
    /// Folder of the model: a run's, one in Hugging Face's format, or `owner/name` in the hub's cache.
    #[arg(long, value_name = "MODEL")]
    pub model: String,
    /// An image; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub image: Vec<PathBuf>,
    /// What to ask.
    #[arg(long, value_name = "TEXT")]
    pub prompt: String,
    /// What the model is told before, if its layout of conversations has a place for it.
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub system: Option<String>,
    /// Continue the prompt as it is, behind the images and without the model's layout of conversations.
    #[arg(long)]
    pub raw: bool,
    /// How to answer.
    #[command(flatten)]
    pub answer: AnswerArgs,
    /// The type weights are kept in.
    #[arg(long, value_enum, default_value_t = WeightType::F32)]
    pub dtype: WeightType,
    /// Where to compute.
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// `lenslet chat`: talk with a model in the terminal.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct ChatArgs {
    /// Folder of the model: a run's, one in Hugging Face's format, or `owner/name` in the hub's cache.
    #[arg(long, value_name = "MODEL")]
    pub model: String,
    /// An image to start with; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub image: Vec<PathBuf>,
    /// What the model is told before, if its layout of conversations has a place for it.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// How to answer.
    #[command(flatten)]
    pub answer: AnswerArgs,
    /// The type weights are kept in.
    #[arg(long, value_enum, default_value_t = WeightType::F32)]
    pub dtype: WeightType,
    /// Where to compute.
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// `lenslet inspect`: a model's parts, and all it computes from an input.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct InspectArgs {
    /// Folder of the model: a run's, one in Hugging Face's format, or `owner/name` in the hub's cache.
    #[arg(long, value_name = "MODEL")]
    pub model: String,
    /// An image to compute from; may be repeated where the model takes several.
    #[arg(long, value_name = "FILE")]
    pub image: Vec<PathBuf>,
    /// A text to compute from: a question where the model has conversations.
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// The same as ids.
    #[arg(long, value_name = "ID", value_delimiter = ',', conflicts_with = "prompt")]
    pub ids: Vec<u32>,
    /// Write logits and all hidden states to this file, under the reference's names.
    #[arg(long, value_name = "FILE.safetensors")]
    pub out: Option<PathBuf>,
    /// The type to compute in.
    #[arg(long, value_enum, default_value_t = WeightType::F32)]
    pub dtype: WeightType,
    /// Where to compute.
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// The type weights are kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WeightType {
    /// 32 bits.
    F32,
    /// 16 bits, with the range of f32.
    Bf16,
    /// 16 bits, more precise and of a smaller range.
    F16,
}

impl From<WeightType> for DType {
    fn from(weights: WeightType) -> DType {
        match weights {
            WeightType::F32 => DType::F32,
            WeightType::Bf16 => DType::BF16,
            WeightType::F16 => DType::F16,
        }
    }
}

/// How a model's answers are chosen and what ends them.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct AnswerArgs {
    /// Stop after so many tokens.
    #[arg(long, value_name = "N", default_value = "64", value_parser = at_least_one)]
    pub max_tokens: usize,
    /// 0 takes the likeliest token, higher values dare more; 1 where --top-k, --top-p or --min-p is given, otherwise 0.
    #[arg(long, value_name = "T", value_parser = not_negative)]
    pub temperature: Option<f64>,
    /// Draw among the K likeliest tokens only.
    #[arg(long, value_name = "K", value_parser = at_least_one)]
    pub top_k: Option<usize>,
    /// Draw among the likeliest tokens that together have probability P.
    #[arg(long, value_name = "P", value_parser = probability)]
    pub top_p: Option<f64>,
    /// Draw among tokens at least P times as likely as the likeliest.
    #[arg(long, value_name = "P", value_parser = probability)]
    pub min_p: Option<f64>,
    /// Above 1, tokens that occurred already become less likely.
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = above_zero)]
    pub repetition_penalty: f64,
    /// Follow so many answers at a time and give the likeliest as a whole.
    #[arg(long, value_name = "N", default_value = "1", value_parser = a_few)]
    pub num_beams: usize,
    /// With several beams: higher values favour long answers.
    #[arg(long, value_name = "X", default_value_t = 1.0, allow_negative_numbers = true, value_parser = finite)]
    pub length_penalty: f64,
    /// End the answer before this text; may be repeated.
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub stop: Vec<String>,
    /// Seed of the draws.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// `lenslet eval`: measure a trained model. Without --tasks, on what its own recipe held out.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct EvalArgs {
    /// Folder of the model: a run's, one in Hugging Face's format, or `owner/name` in the hub's cache.
    #[arg(long, value_name = "MODEL")]
    pub model: String,
    /// What to measure it on.
    #[arg(long, value_enum, value_name = "TASK,…", value_delimiter = ',')]
    pub tasks: Vec<Task>,
    /// What a task is read from: its file or folder; may be repeated where a task is several files.
    #[arg(long, value_name = "TASK=PATH", requires = "tasks")]
    pub data: Vec<String>,
    /// The folder or zip of images, of all tasks or of one.
    #[arg(long, value_name = "[TASK=]PATH", requires = "tasks")]
    pub images: Vec<String>,
    /// How a task's questions are put, with `{}` where each stands; may be repeated for zeroshot.
    #[arg(long, value_name = "TASK=TEXT", requires = "tasks")]
    pub prompt: Vec<String>,
    /// Seed of what is drawn at random; without --tasks that of the scenes, the run's own where left out.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Items per file of a task, images per class for zeroshot; without --tasks questions per kind.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub limit: Option<usize>,
    /// Items at once.
    #[arg(long, value_name = "N", default_value = "32", value_parser = a_few)]
    pub batch_size: usize,
    /// The longest answer; 16 tokens for short ones and 64 for captions where left out.
    #[arg(long, value_name = "N", value_parser = at_least_one, requires = "tasks")]
    pub max_tokens: Option<usize>,
    /// Leave out the controls: the same with blank images, and without any.
    #[arg(long, requires = "tasks")]
    pub no_controls: bool,
    /// Write results.json to this folder.
    #[arg(long, value_name = "DIR", requires = "tasks")]
    pub output: Option<PathBuf>,
    /// Write every item with question, answer and score beside it, too.
    #[arg(long, requires = "output")]
    pub log_samples: bool,
    /// The type weights are kept in; f32, without --tasks the run's own.
    #[arg(long, value_enum)]
    pub dtype: Option<WeightType>,
    /// Where to compute.
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// Where to compute.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct ComputeArgs {
    /// `cpu`, `cuda:N` or `emulated`.
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Threads; one per core where left out. Results do not depend on it.
    #[arg(long, value_name = "N", value_parser = a_few)]
    pub threads: Option<usize>,
}

/// Threads, beams, items at once: each takes memory by itself.
fn a_few(text: &str) -> Result<usize, String> {
    let most = 1024;
    match at_least_one(text)? {
        count if count > most => Err(format!("more than {most}")),
        count => Ok(count),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("expected at least 1".into()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("expected a whole number, 1 or more: {error}")),
    }
}

fn part(text: &str) -> Result<(usize, usize), String> {
    let numbers = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    let inside = numbers.filter(|&(i, n): &(usize, usize)| i < n);
    inside.ok_or_else(|| "expected I/N with I from 0 to N - 1, as in 0/4".into())
}

fn number(text: &str, fits: impl Fn(f64) -> bool, expected: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|&value| value.is_finite() && fits(value));
    value.ok_or_else(|| format!("expected {expected}"))
}

fn finite(text: &str) -> Result<f64, String> {
    number(text, |_| true, "a number")
}

fn not_negative(text: &str) -> Result<f64, String> {
    number(text, |value| value >= 0.0, "a number, 0 or more")
}

fn above_zero(text: &str) -> Result<f64, String> {
    number(text, |value| value > 0.0, "a number above 0")
}

fn share(text: &str) -> Result<f64, String> {
    number(text, |value| (0.0..=1.0).contains(&value), "a number from 0 to 1")
}

fn probability(text: &str) -> Result<f64, String> {
    number(text, |value| value > 0.0 && value <= 1.0, "a number above 0 and at most 1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    #[derive(Debug, Parser)]
    struct All {
        #[command(subcommand)]
        verb: AllVerbs,
    }

    #[derive(Debug, Subcommand)]
    enum AllVerbs {
        Demo(DemoArgs),
        Train(TrainArgs),
        Generate(GenerateArgs),
        Chat(ChatArgs),
        Eval(EvalArgs),
        Test(KernelsTestArgs),
    }

    fn parse(line: &str) -> Result<AllVerbs, clap::Error> {
        All::try_parse_from(std::iter::once("lenslet").chain(line.split_whitespace())).map(|all| all.verb)
    }

    #[test]
    fn the_command_lines_are_sound() {
        Cli::command().debug_assert();
        All::command().debug_assert();
    }

    #[test]
    fn every_flag_arrives() {
        let AllVerbs::Demo(demo) = parse("demo --seed 3 --max-steps 5 --out x --device cuda:1 --threads 2").unwrap()
        else {
            panic!()
        };
        assert_eq!((demo.seed, demo.max_steps, demo.out), (3, Some(5), Some("x".into())));
        assert_eq!((demo.compute.device.as_str(), demo.compute.threads), ("cuda:1", Some(2)));
        let AllVerbs::Train(train) = parse("train --recipe r.toml --set a.b=1 --set c=2 --dry-run").unwrap() else {
            panic!()
        };
        assert_eq!((train.set, train.dry_run, train.device), (vec!["a.b=1".into(), "c=2".into()], true, None));
        let line = "generate --model m --image i --image j --prompt p --top-k 3 --top-p 0.5 --min-p 0.1 --temperature 0.7 \
                    --repetition-penalty 1.2 --length-penalty -1 --stop a --stop b --max-tokens 9 --dtype bf16";
        let AllVerbs::Generate(generate) = parse(line).unwrap() else { panic!() };
        let answer = generate.answer;
        assert_eq!(
            (generate.image.len(), generate.dtype, answer.max_tokens, answer.stop.len()),
            (2, WeightType::Bf16, 9, 2)
        );
        assert_eq!(
            (answer.top_k, answer.top_p, answer.min_p, answer.temperature),
            (Some(3), Some(0.5), Some(0.1), Some(0.7))
        );
        assert_eq!((answer.repetition_penalty, answer.length_penalty), (1.2, -1.0));
        let AllVerbs::Chat(chat) = parse("chat --model org/m --num-beams 3 --device cuda:1").unwrap() else { panic!() };
        assert_eq!((chat.model.as_str(), chat.image.len(), chat.answer.num_beams), ("org/m", 0, 3));
        assert_eq!((chat.answer.temperature, chat.compute.device.as_str()), (None, "cuda:1"));
        let AllVerbs::Eval(eval) = parse("eval --model m --limit 10 --seed 4").unwrap() else { panic!() };
        assert_eq!((eval.limit, eval.seed, eval.tasks.len()), (Some(10), Some(4), 0));
        let line = "eval --model org/m --tasks pope,nlvr --data pope=p.json --images a.zip --output o --log-samples --device cuda:1";
        let AllVerbs::Eval(eval) = parse(line).unwrap() else { panic!() };
        assert_eq!((eval.tasks, eval.data.len(), eval.log_samples), (vec![Task::Pope, Task::Nlvr], 1, true));
        assert_eq!((eval.compute.device.as_str(), eval.batch_size, eval.max_tokens), ("cuda:1", 32, None));
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for line in [
            "demo --threads 0",
            "demo --max-steps 0",
            "demo --seed=-1",
            "demo --seed 9223372036854775808",
            "generate --model m --image i --prompt p --top-p 0",
            "generate --model m --image i --prompt p --top-p 1.5",
            "generate --model m --image i --prompt p --top-k 0",
            "generate --model m --image i --prompt p --temperature=-1",
            "generate --model m --image i --prompt p --temperature nan",
            "generate --model m --image i --prompt p --max-tokens 0",
            "generate --model m --prompt p --min-p 0",
            "generate --model m --prompt p --repetition-penalty 0",
            "generate --model m --prompt p --length-penalty inf",
            "chat --model m --num-beams 0",
            "eval --model m --limit 0",
            "test --part 4/4",
            "test --part 1",
            "eval --model m --tasks pope --batch-size 0",
        ] {
            assert_eq!(parse(line).expect_err(line).kind(), ErrorKind::ValueValidation, "{line}");
        }
        for line in ["train", "eval --model m --data pope=x", "eval --model m --tasks pope --log-samples"] {
            assert_eq!(parse(line).expect_err(line).kind(), ErrorKind::MissingRequiredArgument, "{line}");
        }
        assert_eq!(parse("eval --model m --tasks pop").unwrap_err().kind(), ErrorKind::InvalidValue);
    }
}

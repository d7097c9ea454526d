//! The command line: one verb each, kebab-case flags.

use crate::bench::Grid;
use clap::{Args, Parser, Subcommand, ValueEnum};
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
    /// Ask a trained model about an image.
    Generate(GenerateArgs),
    /// Measure a trained model.
    Eval(EvalArgs),
    /// Time the kernels on a device beside what it is capable of.
    Bench(BenchArgs),
    /// List the CUDA kernels, compile them, or test them against plain f64 loops.
    #[command(subcommand)]
    Kernels(KernelsVerb),
    /// Print version, processor, memory and what was found of CUDA.
    Env,
}

/// `lenslet bench`: time the kernels.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct BenchArgs {
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

/// `lenslet kernels`: the CUDA kernels themselves.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum KernelsVerb {
    /// Print families, specialisations and files.
    List,
    /// Compile every specialisation and print registers, shared memory and spills; needs NVRTC and no GPU.
    Check {
        /// Architectures to compile for.
        #[arg(
            long,
            value_name = "ARCH",
            value_delimiter = ',',
            default_value = "sm_80,sm_90a,sm_100a"
        )]
        arch: Vec<String>,
    },
    /// Run the table of ops on a device and compare with plain f64 loops.
    Test(KernelsTestArgs),
    /// Print what every PTX instruction the kernels use answers on a device; a GPU's answers belong into
    /// kernels/tests/golden/<architecture>.txt, against which the emulator is tested.
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
    /// The recipe.
    #[arg(long, value_name = "FILE")]
    pub recipe: PathBuf,
    /// Change a value of the recipe, as in `--set phase1.lr=1e-3`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Run folder in place of `runs/<name>`; must not exist yet.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Device in place of the recipe's.
    #[arg(long)]
    pub device: Option<String>,
    /// Start each of a GPU's kernels by itself, to compare: otherwise a step that has come before is one CUDA graph.
    #[arg(long)]
    pub no_graph: bool,
    /// Check everything and print parameters, memory, steps and one batch; train nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// `lenslet generate`: ask a trained model about an image.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct GenerateArgs {
    /// Run folder of the model.
    #[arg(long, value_name = "RUN")]
    pub model: PathBuf,
    /// The image.
    #[arg(long, value_name = "FILE")]
    pub image: PathBuf,
    /// What to ask.
    #[arg(long, value_name = "TEXT")]
    pub prompt: String,
    /// Stop after so many tokens.
    #[arg(long, value_name = "N", default_value = "64", value_parser = at_least_one)]
    pub max_tokens: usize,
    /// 0 takes the likeliest token, higher values dare more.
    #[arg(long, default_value_t = 0.0, value_parser = temperature)]
    pub temperature: f64,
    /// Draw among the K likeliest tokens only.
    #[arg(long, value_name = "K", value_parser = at_least_one)]
    pub top_k: Option<usize>,
    /// Draw among the likeliest tokens that together have probability P.
    #[arg(long, value_name = "P", value_parser = probability)]
    pub top_p: Option<f64>,
    /// Seed of the draws.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// `lenslet eval`: measure a trained model.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct EvalArgs {
    /// Run folder of the model.
    #[arg(long, value_name = "RUN")]
    pub model: PathBuf,
    /// Seed of the questions asked; the run's own where left out.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Questions per kind.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub limit: Option<usize>,
}

/// Where to compute.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct ComputeArgs {
    /// `cpu`, `cuda:N` or `emulated`.
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Threads; one per core where left out. Results do not depend on it.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub threads: Option<usize>,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("expected at least 1".into()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("expected a whole number, 1 or more: {error}")),
    }
}

fn temperature(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value >= 0.0 && value.is_finite() => Ok(value),
        _ => Err("expected a number, 0 or more".into()),
    }
}

fn probability(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 1.0 => Ok(value),
        _ => Err("expected a number above 0 and at most 1".into()),
    }
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
        Eval(EvalArgs),
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
        assert_eq!(
            (demo.compute.device.as_str(), demo.compute.threads),
            ("cuda:1", Some(2))
        );
        let AllVerbs::Train(train) = parse("train --recipe r.toml --set a.b=1 --set c=2 --dry-run").unwrap() else {
            panic!()
        };
        assert_eq!(
            (train.set, train.dry_run, train.device),
            (vec!["a.b=1".into(), "c=2".into()], true, None)
        );
        let line = "generate --model m --image i --prompt p --top-k 3 --top-p 0.5 --temperature 0.7 --max-tokens 9";
        let AllVerbs::Generate(generate) = parse(line).unwrap() else {
            panic!()
        };
        assert_eq!(
            (
                generate.top_k,
                generate.top_p,
                generate.temperature,
                generate.max_tokens
            ),
            (Some(3), Some(0.5), 0.7, 9)
        );
        let AllVerbs::Eval(eval) = parse("eval --model m --limit 10 --seed 4").unwrap() else {
            panic!()
        };
        assert_eq!((eval.limit, eval.seed), (Some(10), Some(4)));
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
            "eval --model m --limit 0",
        ] {
            assert_eq!(
                parse(line).expect_err(line).kind(),
                ErrorKind::ValueValidation,
                "{line}"
            );
        }
        assert_eq!(parse("train").unwrap_err().kind(), ErrorKind::MissingRequiredArgument);
    }
}

//! `lenslet bench`: times the kernels.

use crate::bench::{self, Arithmetic, Bench, Reference};
use crate::cli::BenchArgs;
use crate::compute;
use crate::run_folder::write_whole;
use anyhow::Result;

pub(super) fn run(args: &BenchArgs) -> Result<()> {
    let device = compute::open(&args.compute.device)?;
    let python = args.reference.as_deref();
    let reference = python.map(|python| Reference::start(python, &args.compute.device));
    let reference = reference.transpose()?;
    let bench = Bench {
        device: &device,
        grid: args.grid,
        families: &args.families,
        arithmetics: &Arithmetic::ALL,
    };
    let save = |lines: &[bench::Line]| match &args.json {
        Some(path) => write_whole(path, serde_json::to_string_pretty(lines)?.as_bytes()),
        None => Ok(()),
    };
    compute::with_threads(args.compute.threads, || {
        bench::run(&bench, reference, &mut std::io::stdout(), save).map(drop)
    })
}

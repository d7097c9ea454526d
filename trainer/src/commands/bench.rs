//! `lenslet bench`: times the kernels.

use crate::bench::{self, Arithmetic};
use crate::cli::BenchArgs;
use crate::compute;
use crate::run_folder::write_whole;
use anyhow::Result;

pub(super) fn run(args: &BenchArgs) -> Result<()> {
    let device = compute::open(&args.compute.device)?;
    if args.serve {
        return compute::with_threads(args.compute.threads, || {
            bench::serve(&device, args.grid, std::io::stdin().lock(), std::io::stdout())
        });
    }
    let families = &args.families;
    let lines = compute::with_threads(args.compute.threads, || {
        let mut out = std::io::stdout();
        bench::run(&device, args.grid, families, &Arithmetic::ALL, &mut out)
    })?;
    let Some(path) = &args.json else { return Ok(()) };
    let text = serde_json::to_string_pretty(&lines)?;
    write_whole(path, text.as_bytes())
}

//! `lenslet bench`: times the kernels.

use crate::bench::{self, Arithmetic, Bench, Reference, step};
use crate::cli::{BenchArgs, BenchVerb, StepArgs};
use crate::compute;
use crate::memory;
use crate::profile;
use crate::run_folder::{new_file, write_whole};
use anyhow::Result;
use std::io::Write;

pub(super) fn run(args: &BenchArgs) -> Result<()> {
    if let Some(BenchVerb::Step(step)) = &args.verb {
        return self::step(step);
    }
    args.json.as_deref().map(new_file).transpose()?;
    let device = compute::open(&args.compute.device)?;
    let python = args.reference.as_deref();
    let reference = python.map(|python| Reference::start(python, &args.compute.device));
    let reference = reference.transpose()?;
    let bench = Bench { device: &device, grid: args.grid, families: &args.families, arithmetics: &Arithmetic::ALL };
    let save = |lines: &[bench::Line]| match &args.json {
        Some(path) => write_whole(path, serde_json::to_string_pretty(lines)?.as_bytes()),
        None => Ok(()),
    };
    compute::with_threads(args.compute.threads, || {
        let threads = rayon::current_num_threads();
        outln!("{}, {threads} threads", compute::name(&device));
        bench::run(&bench, reference, &mut std::io::stdout(), save).map(drop)
    })
}

fn step(args: &StepArgs) -> Result<()> {
    args.profile.as_deref().map(new_file).transpose()?;
    let device = compute::open(&args.compute.device)?;
    let report = compute::with_threads(args.compute.threads, || {
        step::run(args.size, args.dtype.into(), &device, args.steps, args.profile.is_some())
    });
    let (report, events) = report?;
    let mut out = std::io::stdout();
    if let Some(path) = &args.profile {
        write_whole(path, profile::trace(&events).to_string().as_bytes())?;
        let seconds = report.samples.iter().sum::<f64>() / 1e3;
        write!(out, "{}", profile::table(&events, report.samples.len(), seconds))?;
        return Ok(());
    }
    if args.json {
        return Ok(writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?);
    }
    let [median, p20, p80] = report.milliseconds;
    writeln!(
        out,
        "{} in {} on {}, {} threads: {median:.1} ms a step ({p20:.1} to {p80:.1}, {} steps), {:.1} GFLOP/s, peak memory {}, pool {}",
        report.size,
        report.dtype,
        compute::name(&device),
        report.threads,
        report.samples.len(),
        report.gflops_per_s,
        report.peak_bytes.map_or("unknown".into(), memory::size),
        memory::size(report.pool_bytes as u64),
    )?;
    Ok(())
}

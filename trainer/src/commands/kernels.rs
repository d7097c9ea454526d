//! `lenslet kernels`: lists the CUDA kernels, compiles them without a GPU, tests them against plain loops.

use crate::cli::{KernelsTestArgs, KernelsVerb, TestGrid};
use crate::compute;
use anyhow::{Result, bail, ensure};
use engine::DType;
use engine::table::{Row, follows_oracle, grid, rows};
use kernels::cuda::{self, Driver};
use kernels::gpu::golden::{record, to_text};
use kernels::gpu::nvrtc::Nvrtc;
use kernels::gpu::ptxas::{Limits, Report};
use kernels::gpu::{Specialisation, specialisations};
use std::io::Write;

pub(super) fn run(verb: KernelsVerb) -> Result<()> {
    match verb {
        KernelsVerb::List => list(),
        KernelsVerb::Check { arch } => check(&arch),
        KernelsVerb::Test(args) => test(&args),
        KernelsVerb::Golden { device } => {
            let golden = record(&compute::open(&device)?)?;
            Ok(std::io::stdout().write_all(to_text(&golden).as_bytes())?)
        }
    }
}

fn list() -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:<20}{:<38}{:>7}  specialised to", "family", "source", "threads")?;
    for Specialisation { module, threads } in specialisations() {
        let source = format!("kernels/cuda/{}", module.file());
        writeln!(
            out,
            "{:<20}{source:<38}{threads:>7}  {}",
            module.family(),
            module.specialised_to()
        )?;
    }
    Ok(())
}

/// Compiles everything for each architecture; fails when the assembler found something that makes a kernel slow or keeps it
/// from running.
fn check(architectures: &[String]) -> Result<()> {
    let driver = match cuda::driver() {
        Driver::Found { version, .. } => Some(version.0),
        _ => None,
    };
    let nvrtc = Nvrtc::find(driver)?;
    let mut out = std::io::stdout().lock();
    let (major, minor) = nvrtc.version();
    writeln!(out, "NVRTC {major}.{minor}, {}", nvrtc.path().display())?;
    writeln!(
        out,
        "{:<9}{:>9}{:>8}{:>8}{:>7}  kernel",
        "", "registers", "shared", "spills", "stack"
    )?;
    let (mut compiled, mut wrong) = (0, 0);
    for Specialisation { module, threads } in specialisations() {
        for architecture in architectures.iter().filter(|name| module.runs_on(name)) {
            let report = Report::parse(&module.compile(&nvrtc, architecture)?.log);
            for function in &report.functions {
                let spills = function.spill_stores + function.spill_loads;
                let (registers, shared, stack, name) =
                    (function.registers, function.shared, function.stack, &function.name);
                writeln!(
                    out,
                    "{architecture:<9}{registers:>9}{shared:>8}{spills:>8}{stack:>7}  {name} ({module})"
                )?;
            }
            let limits = Limits {
                threads: threads as u32,
            };
            for violation in report.violations(&limits) {
                writeln!(out, "{architecture}: {module}: {violation}")?;
                wrong += 1;
            }
            compiled += 1;
        }
    }
    writeln!(out, "{compiled} compiled, {wrong} violations")?;
    ensure!(wrong == 0, "{wrong} violations in the compiled kernels, named above");
    Ok(())
}

#[derive(Debug, Default)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
}

/// Runs the table of ops in f32 and bf16. Ops without a sample of their own count as skipped.
fn test(args: &KernelsTestArgs) -> Result<()> {
    let device = compute::open_seeded(&args.device, args.seed)?;
    let mut table = rows();
    if args.grid == TestGrid::Full {
        table.extend(grid());
    }
    let known = |name: &str| table.iter().any(|row| is_about(row, name));
    if let Some(unknown) = args.families.iter().find(|name| !known(name)) {
        bail!("`{unknown}` is no kernel family and no op; `lenslet kernels list` names the families");
    }
    let (part, parts) = args.part.unwrap_or((0, 1));
    let mut number = 0;
    let mut counts = Counts::default();
    let mut out = std::io::stdout().lock();
    for row in &table {
        if !args.families.is_empty() && !args.families.iter().any(|name| is_about(row, name)) {
            continue;
        }
        counts.skipped += usize::from(row.cases.is_empty());
        for case in &row.cases {
            number += 1;
            if number % parts != part {
                continue;
            }
            for dtype in [DType::F32, DType::BF16] {
                let wrong = follows_oracle(case, &device, dtype)
                    .unwrap_or_else(|error| vec![format!("{}: {error}", case.name)]);
                if wrong.is_empty() {
                    counts.passed += 1;
                } else {
                    counts.failed += 1;
                }
                for line in wrong {
                    writeln!(out, "{dtype} {line}")?;
                }
            }
        }
    }
    let Counts {
        passed,
        failed,
        skipped,
    } = counts;
    writeln!(out, "{passed} passed, {failed} failed, {skipped} skipped")?;
    ensure!(
        failed == 0,
        "{failed} cases differ on {}, seed {}",
        args.device,
        args.seed
    );
    Ok(())
}

fn is_about(row: &Row, name: &str) -> bool {
    row.op == name || row.kernels.contains(&name)
}

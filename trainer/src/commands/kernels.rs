//! `lenslet kernels`: lists the CUDA kernels, compiles them without a GPU, tests them against plain loops.

use crate::cli::{KernelsTestArgs, KernelsVerb, TestGrid};
use crate::compute;
use anyhow::{Result, bail, ensure};
use engine::table::{Row, follows_oracle, grid, rows};
use engine::{DType, Kind};
use kernels::cuda::{self, Driver};
use kernels::gpu::golden::{differences, record, to_text};
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
        let source = module.path();
        writeln!(out, "{:<20}{source:<38}{threads:>7}  {}", module.family(), module.specialised_to())?;
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
    writeln!(out, "{:<9}{:>9}{:>8}{:>8}{:>7}  kernel", "", "registers", "shared", "spills", "stack")?;
    let (mut compiled, mut wrong) = (0, 0);
    for Specialisation { module, threads } in specialisations() {
        for architecture in architectures.iter().filter(|name| module.runs_on(name)) {
            let report = Report::parse(&module.compile(&nvrtc, architecture)?.log);
            for function in &report.functions {
                let spills = function.spill_stores + function.spill_loads;
                let (registers, shared, stack, name) =
                    (function.registers, function.shared, function.stack, &function.name);
                writeln!(out, "{architecture:<9}{registers:>9}{shared:>8}{spills:>8}{stack:>7}  {name} ({module})")?;
            }
            let limits = Limits { threads: threads as u32 };
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

impl Counts {
    /// Counts `checks` checks and prints what is wrong.
    fn add(&mut self, checks: usize, wrong: &[String], out: &mut impl Write) -> std::io::Result<()> {
        let failed = wrong.len().min(checks);
        self.failed += failed;
        self.passed += checks - failed;
        wrong.iter().try_for_each(|line| writeln!(out, "{line}"))
    }
}

/// The instructions that CUDA kernels are made of; not in the table, since no op is.
const INSTRUCTIONS: &str = "golden";

/// Runs the table of ops in f32 and bf16, and the single instructions. Ops without a sample of their own count as skipped.
fn test(args: &KernelsTestArgs) -> Result<()> {
    let device = compute::open_seeded(&args.device, args.seed)?;
    let mut table = rows();
    if args.grid == TestGrid::Full {
        table.extend(grid());
    }
    refuse_unknown(&table, &args.families)?;
    let chosen = |of: &dyn Fn(&str) -> bool| args.families.is_empty() || args.families.iter().any(|name| of(name));
    let (part, parts) = args.part.unwrap_or((0, 1));
    let mut number = 0;
    let mut counts = Counts::default();
    let mut out = std::io::stdout().lock();
    for row in table.iter().filter(|row| chosen(&|name| is_about(row, name))) {
        counts.skipped += usize::from(row.cases.is_empty());
        for case in &row.cases {
            number += 1;
            if number % parts != part {
                continue;
            }
            for dtype in [DType::F32, DType::BF16] {
                let wrong = follows_oracle(case, &device, dtype)
                    .unwrap_or_else(|error| vec![format!("{}: {error}", case.name)]);
                let wrong: Vec<String> = wrong.iter().map(|line| format!("{dtype} {line}")).collect();
                counts.add(1, &wrong[..], &mut out)?;
            }
        }
    }
    if part == 0 && chosen(&|name| of_family(name, INSTRUCTIONS)) {
        if matches!(device.kind(), Kind::Cuda(_) | Kind::Emulated) {
            let (checks, wrong) = match record(&device) {
                Ok(golden) => (golden.len(), differences(&golden)),
                Err(error) => (1, vec![format!("{INSTRUCTIONS}: {error}")]),
            };
            counts.add(checks, &wrong, &mut out)?;
        } else {
            counts.skipped += 1;
        }
    }
    let Counts { passed, failed, skipped } = counts;
    writeln!(out, "{passed} passed, {failed} failed, {skipped} skipped")?;
    ensure!(failed == 0, "{failed} cases differ on {}, seed {}", args.device, args.seed);
    Ok(())
}

/// A name that is no op's, no family's, nor that of a source of one, as `kernels list` prints them.
fn refuse_unknown(table: &[Row], names: &[String]) -> Result<()> {
    let mut known: Vec<&str> = table
        .iter()
        .flat_map(|row| std::iter::once(row.op).chain(row.kernels.iter().copied()))
        .chain([INSTRUCTIONS])
        .collect();
    known.sort_unstable();
    known.dedup();
    match names.iter().find(|name| !known.iter().any(|known| of_family(name, known))) {
        Some(unknown) => bail!("`{unknown}` is tested by no op; known are {}", known.join(", ")),
        None => Ok(()),
    }
}

fn is_about(row: &Row, name: &str) -> bool {
    row.op == name || row.kernels.iter().any(|family| of_family(name, family))
}

/// Whether `name` is the family, or one of several sources that it has, such as `gemm_simt` of `gemm`.
fn of_family(name: &str, family: &str) -> bool {
    let source = |rest: &str| rest.starts_with('_') && specialisations().iter().any(|s| s.module.family() == name);
    name.strip_prefix(family).is_some_and(|rest| rest.is_empty() || source(rest))
}

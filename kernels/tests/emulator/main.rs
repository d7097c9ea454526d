//! The emulator against kernels with a mistake planted in each, and against correct ones: what it must find, and what it
//! must not claim to find.
//!
//! A planted line ends in `// BUG: <what the report says>`, with `|` between alternatives; the report must also name the
//! line. On failure a table shows how each was found.

use kernels::gpu::{Arg, Emulation, Grid, Module, launch_own};
use kernels::{Buffer, DType, Device, Result, View, ViewMut};
use std::fmt::Write;
use std::time::Instant;

const BULK: &str = include_str!("bulk.cu");
const CORRECT: &str = include_str!("correct.cu");
const CORRECT_BULK: &str = include_str!("correct_bulk.cu");
const MBARRIERS: &str = include_str!("mbarriers.cu");
const RACES: &str = include_str!("races.cu");
const MEMORY: &str = include_str!("memory.cu");
const SPEED: &str = include_str!("speed.cu");
const WAITS: &str = include_str!("waits.cu");

/// Elements of an argument, and of the buffer around it on either side.
const LEN: usize = 4096;
const AROUND: usize = 64;

struct Run {
    len: usize,
    x: Buffer,
    out: Buffer,
    fresh: Buffer,
}

/// x = 0, 1, … 6, 0, 1, … with a zero to the left of it.
fn x_values(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i % 7) as f32).collect()
}

impl Run {
    fn new(device: &Device, len: usize) -> Result<Run> {
        let buffer = || device.allocate(4 * (len + 2 * AROUND));
        let mut run = Run { len, x: buffer()?, out: buffer()?, fresh: buffer()? };
        let around = vec![0.0f32; len + 2 * AROUND];
        for buffer in [&mut run.x, &mut run.out] {
            ViewMut::new(buffer, DType::F32, 0, around.len()).upload(&around)?;
        }
        ViewMut::new(&mut run.x, DType::F32, AROUND, len).upload(&x_values(len))?;
        Ok(run)
    }

    fn launch(&mut self, device: &Device, module: &Module, kernel: &'static str, blocks: usize) -> Result<Vec<f32>> {
        let len = self.len;
        let grid = Grid { shared: 4096, ..Grid::new(blocks, 128) };
        let args = [
            Arg::from(View::new(&self.x, DType::F32, AROUND, len)),
            Arg::from(&ViewMut::new(&mut self.out, DType::F32, AROUND, len)),
            Arg::from(&ViewMut::new(&mut self.fresh, DType::F32, AROUND, len)),
        ];
        // SAFETY: the buffers outlive the call and are `self`'s alone. The mistakes of races.cu and waits.cu stay within them
        // or are caught; those of memory.cu run on devices that check only.
        unsafe { launch_own(device, module, kernel, grid, &args)? };
        View::new(&self.out, DType::F32, AROUND, len).download()
    }
}

fn device(seed: u64, check: bool) -> Device {
    Device::emulated(Emulation { seed, check }).unwrap_or_else(|error| panic!("{error}"))
}

fn run(device: &Device, module: &Module, kernel: &'static str) -> Result<Vec<f32>> {
    Run::new(device, LEN)?.launch(device, module, kernel, 2)
}

/// The names of a source's kernels.
fn kernels(source: &'static str) -> impl Iterator<Item = &'static str> {
    source.lines().filter_map(|line| line.strip_prefix("EXPORT_KERNEL(")?.strip_suffix(')'))
}

struct Planted {
    kernel: &'static str,
    line: usize,
    /// Any of these.
    says: Vec<&'static str>,
}

/// The mistakes of a source, in the order of its kernels: one each.
fn planted(source: &'static str) -> Vec<Planted> {
    let bugs = source.lines().zip(1..).filter_map(|(line, number)| Some((line.split_once("// BUG: ")?.1, number)));
    let found: Vec<Planted> = kernels(source)
        .zip(bugs)
        .map(|(kernel, (says, line))| Planted { kernel, line, says: says.split('|').collect() })
        .collect();
    assert_eq!(found.len(), kernels(source).count());
    assert_eq!(found.len(), source.matches("// BUG: ").count());
    found
}

/// Requires each mistake of a source to be reported, with its line, for every seed.
fn expect_found(name: &'static str, source: &'static str, check: bool, seeds: std::ops::Range<u64>) {
    let module = Module::from_source(name, source);
    let mut table = String::new();
    let mut missed = 0;
    let bugs = planted(source);
    let devices: Vec<(u64, Device)> = seeds.map(|seed| (seed, device(seed, check))).collect();
    for bug in &bugs {
        for (seed, device) in &devices {
            let outcome = run(device, &module, bug.kernel);
            let report = outcome.map_or_else(|error| error.to_string(), |_| "NOT FOUND".to_owned());
            let line = format!("{name}.cu:{}", bug.line);
            let named = report
                .match_indices(&line)
                .any(|(at, _)| !report[at + line.len()..].starts_with(|c: char| c.is_ascii_digit()));
            let good =
                named && bug.says.iter().any(|says| report.contains(says)) && report.contains(&format!("seed {seed}"));
            missed += u32::from(!good);
            let mark = if good { "  " } else { "!!" };
            writeln!(table, "{mark} {} (line {}), seed {seed}:\n     {report}", bug.kernel, bug.line).unwrap();
        }
    }
    assert_eq!(missed, 0, "of {} mistakes, {} seeds each:\n{table}", bugs.len(), devices.len());
}

#[test]
fn races_are_found() {
    expect_found("races", RACES, true, 0..6);
}

#[test]
fn bad_memory_is_found() {
    expect_found("memory", MEMORY, true, 0..4);
}

#[test]
fn vain_waits_are_found() {
    expect_found("waits", WAITS, true, 0..4);
}

#[test]
fn vain_waits_are_found_without_checks() {
    expect_found("waits", WAITS, false, 0..4);
}

#[test]
fn misused_mbarriers_are_found() {
    expect_found("mbarriers", MBARRIERS, true, 0..6);
}

#[test]
fn misused_mbarriers_are_found_without_checks() {
    expect_found("mbarriers", MBARRIERS, false, 0..6);
}

#[test]
fn unordered_bulk_copies_are_found() {
    expect_found("bulk", BULK, true, 0..6);
}

/// What each kernel of correct.cu and correct_bulk.cu leaves at the start of `out`.
fn expected(kernel: &str) -> Vec<f32> {
    let x = x_values(LEN);
    let sum = |values: &[f32]| values.iter().sum::<f32>();
    match kernel {
        "tree_reduction" | "warp_reduction" => vec![sum(&x[..128]), sum(&x[128..256])],
        "tiled_transpose" => (0..LEN).map(|i| x[i % 64 * 64 + i / 64]).collect(),
        "copy_pipeline" | "producer_consumer" => x.iter().map(|x| 2.0 * x).collect(),
        "shuffle_scan" => (0..256).map(|i| sum(&x[i / 32 * 32..=i])).collect(),
        "last_block" | "atomic_sum" => vec![sum(&x[..256])],
        "barriers_of_parts" => (0..256).map(|i| x[i ^ if i % 128 < 64 { 32 } else { 1 }]).collect(),
        "packed_halves" => x[..64].to_vec(),
        "warp_product" => (0..1024).map(|i| sum(&x[i % 128 / 8 * 16..][..16])).collect(),
        bulk if bulk.starts_with("bulk_") => x.iter().map(|x| 2.0 * x).collect(),
        other => panic!("{other} has no expected values"),
    }
}

fn expect_right(name: &'static str, source: &'static str) {
    let module = Module::from_source(name, source);
    for (seed, check) in (0..20).flat_map(|seed| [(seed, true), (seed, false)]) {
        let device = device(seed, check);
        for kernel in kernels(source) {
            let out = run(&device, &module, kernel).unwrap_or_else(|error| panic!("{error}"));
            let expected = expected(kernel);
            assert_eq!(out[..expected.len()], expected, "{kernel}, seed {seed}, check {check}");
        }
    }
}

#[test]
fn correct_kernels_pass_in_every_order() {
    expect_right("correct", CORRECT);
}

#[test]
fn correct_bulk_copies_pass_in_every_order() {
    expect_right("correct_bulk", CORRECT_BULK);
}

#[test]
#[ignore = "prints what checking costs"]
fn speed() {
    let module = Module::from_source("speed", SPEED);
    for kernel in kernels(SPEED) {
        let [plain, checked] = [false, true].map(|check| {
            let device = device(0, check);
            let mut run = Run::new(&device, 1 << 16).unwrap();
            let mut best = f64::INFINITY;
            for _ in 0..6 {
                let start = Instant::now();
                run.launch(&device, &module, kernel, 64).unwrap_or_else(|error| panic!("{error}"));
                best = best.min(start.elapsed().as_secs_f64() * 1e3);
            }
            best
        });
        eprintln!("{kernel}: {plain:.2} ms, checked {checked:.2} ms: {:.1} times", checked / plain);
    }
}

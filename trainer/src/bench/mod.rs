//! `lenslet bench`: how fast the kernels are on a device, beside what the device was measured to be capable of, and beside
//! PyTorch's kernels where a Python that has them is given.
//!
//! Two ceilings are measured in the same run: a plain copy for kernels that move memory; for those that compute, on a CPU the
//! multiply-adds of all threads on registers alone, elsewhere the quickest of the matrix products in the same type. References are timed sample by sample in turn with ours.

mod arithmetic;
mod cases;
mod reference;
mod shapes;
pub mod step;
mod timing;

pub use arithmetic::Arithmetic;
pub use reference::Reference;
pub use shapes::Grid;

use cases::{Case, Work, cases};
use timing::{Sampler, Timing, in_turn};

use anyhow::{Context, Result, ensure};
use kernels::{Device, Kind};
use serde::Serialize;
use serde_json::json;
use std::io::Write;

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// The kernel's family.
    pub family: &'static str,
    /// What was called and on which shape.
    pub name: String,
    /// What was computed in, see [`Arithmetic`].
    pub dtype: &'static str,
    /// Median of the seconds per call, and the quantiles at 20 and 80 %.
    pub seconds: [f64; 3],
    /// Samples taken.
    pub samples: usize,
    /// `TFLOP/s` or `GB/s`.
    pub unit: &'static str,
    /// How many of them, from the median.
    pub rate: f64,
    /// The share of the ceiling measured in the same run, %.
    pub percent: Option<f64>,
    /// Memory the call takes beside its arguments.
    pub workspace_bytes: usize,
    /// What was timed in turn with it.
    pub references: Vec<Referred>,
    /// The quickest of them.
    pub best_reference: Option<String>,
    /// Its median over ours: above 1 ours is quicker.
    pub speed_against_best: Option<f64>,
}

/// A reference's figures, as in [`Line`].
#[derive(Debug, Clone, Serialize)]
pub struct Referred {
    /// What it is called.
    pub name: String,
    /// Median and quantiles.
    pub seconds: [f64; 3],
    /// GPU memory it takes beside arguments and results.
    pub workspace_bytes: Option<u64>,
}

/// What is timed.
#[derive(Debug)]
pub struct Bench<'a> {
    pub device: &'a Device,
    /// On which shapes.
    pub grid: Grid,
    /// Families by name; all where there are none.
    pub families: &'a [String],
    /// In what; what a family does not know on the device is left out.
    pub arithmetics: &'a [Arithmetic],
}

/// Times the cases one after another, writes each line as it is known and hands all so far to `save`.
///
/// # Errors
/// A name that is no family's; a device or a reference that fails.
pub fn run(
    bench: &Bench<'_>,
    mut reference: Option<Reference>,
    out: &mut impl Write,
    mut save: impl FnMut(&[Line]) -> Result<()>,
) -> Result<Vec<Line>> {
    let &Bench { device, grid, families, arithmetics } = bench;
    let all = cases(grid);
    let unknown = families.iter().find(|name| !all.iter().any(|(family, _)| family == name));
    ensure!(
        unknown.is_none(),
        "`{}` has no bench; there are {}",
        unknown.map_or("", String::as_str),
        families_of(&all)
    );
    let timed = |family: &str| arithmetics.iter().any(|arithmetic| arithmetic.is_for(family, device));
    let elsewhere = families.iter().find(|name| !timed(name));
    ensure!(elsewhere.is_none(), "`{}` is not timed on {}", elsewhere.map_or("", String::as_str), device.kind().name());
    let mut lines: Vec<Line> = Vec::new();
    writeln!(
        out,
        "{:>10} {:>21} {:>9} {:>7} {:>8} {:>20}  kernel",
        "median", "p20 … p80", "rate", "", "ceiling", "against reference"
    )?;
    for &arithmetic in arithmetics {
        device.allow_tf32(arithmetic == Arithmetic::Tf32);
        for (family, make) in all.iter().filter(|(family, _)| arithmetic.is_for(family, device)) {
            let chosen = families.is_empty() || families.iter().any(|name| name == family);
            if !chosen && !is_ceiling(family, device, arithmetic, &lines) {
                continue;
            }
            let case = make(device, arithmetic.dtype()).with_context(|| format!("the {family} bench"))?;
            let line = measure(device, case, arithmetic, reference.as_mut(), &lines)?;
            writeln!(out, "{}", text(&line))?;
            lines.push(line);
            save(&lines)?;
        }
    }
    Ok(lines)
}

/// A copy and the ceiling of what computes are timed for every choice of families: the others are measured against them.
fn is_ceiling(family: &str, device: &Device, arithmetic: Arithmetic, lines: &[Line]) -> bool {
    let first = !lines.iter().any(|line| line.family == family && line.dtype == arithmetic.name());
    first && (family == "copy" || family == compute_ceiling(device))
}

/// The family that others which compute are measured against.
fn compute_ceiling(device: &Device) -> &'static str {
    match device.kind() {
        Kind::Cpu => "peak",
        _ => "gemm",
    }
}

fn families_of(all: &[(&'static str, cases::Make)]) -> String {
    let mut names: Vec<&str> = all.iter().map(|(family, _)| *family).collect();
    names.dedup();
    names.join(", ")
}

fn measure(
    device: &Device,
    mut case: Case,
    arithmetic: Arithmetic,
    mut reference: Option<&mut Reference>,
    lines: &[Line],
) -> Result<Line> {
    let (name, dtype) = (case.name(), arithmetic.name());
    let about = json!({
        "family": case.family, "kernel": case.kernel, "variant": case.variant, "shape": case.shape, "dtype": dtype,
    });
    let failed = || format!("{name} in {dtype}");
    device.reset_peaks();
    let held = device.memory().in_use;
    let mut sampler = Sampler::new(device, &mut case.run).with_context(failed)?;
    let workspace_bytes = device.memory().peak_in_use - held;
    let found = reference.as_mut().map_or(Ok(Vec::new()), |program| program.open(&about))?;
    let timings = in_turn(1 + found.len(), |which| match (which, &mut reference) {
        (1.., Some(program)) => program.sample(&found[which - 1].name),
        _ => sampler.sample(),
    });
    let timings = timings.with_context(failed)?;
    let ours = &timings[0];

    let (unit, work, reference) = match case.work {
        Work::Flops(flops) => ("TFLOP/s", flops / 1e12, compute_ceiling(device)),
        Work::Bytes(bytes) => ("GB/s", bytes / 1e9, "copy"),
    };
    let rate = work / ours.median;
    let same = lines.iter().filter(|line| line.family == reference && line.dtype == dtype);
    let ceiling = same.map(|line| line.rate).reduce(f64::max);
    let references: Vec<Referred> = found.into_iter().zip(&timings[1..]).map(referred).collect();
    let best = references.iter().min_by(|a, b| a.seconds[0].total_cmp(&b.seconds[0]));
    Ok(Line {
        family: case.family,
        dtype,
        seconds: ours.quantiles(),
        samples: ours.samples,
        unit,
        rate,
        percent: ceiling.map(|ceiling| 100.0 * rate / ceiling),
        workspace_bytes,
        best_reference: best.map(|best| best.name.clone()),
        speed_against_best: best.map(|best| best.seconds[0] / ours.median),
        references,
        name,
    })
}

fn referred((found, timing): (reference::Found, &Timing)) -> Referred {
    Referred { name: found.name, seconds: timing.quantiles(), workspace_bytes: found.workspace_bytes }
}

fn text(line: &Line) -> String {
    let [median, p20, p80] = line.seconds.map(duration);
    let percent = line.percent.map_or("ceiling".into(), |percent| format!("{percent:.0} %"));
    let best = line.best_reference.iter().zip(line.speed_against_best);
    let against: String = best.map(|(name, ratio)| format!("{ratio:.2} × {name}")).collect();
    let (rate, unit, dtype, name) = (line.rate, line.unit, line.dtype, &line.name);
    format!(
        "{median:>10} {:>21} {rate:>9.3} {unit:<7} {percent:>8} {against:>20}  {dtype} {name}",
        format!("{p20} … {p80}")
    )
}

/// Seconds in the unit that suits them.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 1e-3 => format!("{:.2} ms", s * 1e3),
        s => format!("{:.1} µs", s * 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu_bench<'a>(device: &'a Device, families: &'a [String], arithmetics: &'a [Arithmetic]) -> Bench<'a> {
        Bench { device, grid: Grid::Tiny, families, arithmetics }
    }

    #[test]
    fn a_family_is_measured_against_the_ceilings_of_the_same_run() {
        let (mut out, mut saved) = (Vec::new(), 0);
        let (device, families) = (Device::cpu(), ["optimizer".into()]);
        let bench = cpu_bench(&device, &families, &[Arithmetic::Bf16]);
        let save = |lines: &[Line]| {
            saved = lines.len();
            Ok(())
        };
        let lines = run(&bench, None, &mut out, save).unwrap();
        let families: Vec<&str> = lines.iter().map(|line| line.family).collect();
        assert_eq!(families, ["copy", "peak", "optimizer"]);
        assert!(lines[2].percent.is_some_and(|percent| percent > 0.0), "{lines:?}");
        assert!(lines[2].references.is_empty() && lines[2].speed_against_best.is_none());
        assert_eq!((String::from_utf8(out).unwrap().lines().count(), saved), (4, 3));
    }

    #[test]
    fn tf32_is_for_products_on_gpus() {
        let (device, families) = (Device::cpu(), ["gemm".into()]);
        let bench = cpu_bench(&device, &families, &[Arithmetic::Tf32]);
        let error = run(&bench, None, &mut Vec::new(), |_| Ok(())).unwrap_err();
        assert_eq!(error.to_string(), "`gemm` is not timed on cpu");
    }

    #[test]
    fn an_unknown_family_is_refused_with_those_there_are() {
        let (device, families) = (Device::cpu(), ["softmax".into()]);
        let bench = cpu_bench(&device, &families, &[Arithmetic::F32]);
        let error = run(&bench, None, &mut Vec::new(), |_| Ok(()));
        let text = error.unwrap_err().to_string();
        assert!(text.contains("softmax") && text.contains("attention"), "{text}");
    }
}

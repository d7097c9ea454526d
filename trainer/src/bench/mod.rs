//! `lenslet bench`: how fast the kernels are on a device, beside what the device was measured to be capable of.
//!
//! Two ceilings are measured in the same run: a plain copy for kernels that move memory, and the quickest of the matrix
//! products in the same type for those that compute.

mod arithmetic;
mod cases;
mod serve;
mod shapes;
mod timing;

pub use arithmetic::Arithmetic;
pub use serve::serve;
pub use shapes::Grid;

use cases::{Case, Work, cases};
use timing::time;

use anyhow::{Context, Result, ensure};
use kernels::Device;
use serde::Serialize;
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
}

/// Times the cases of `grid` whose family is named, or all, in each of `arithmetics` that it knows on the device; writes each line as it is known.
///
/// # Errors
/// A name that is no family's; a device that fails.
pub fn run(
    device: &Device,
    grid: Grid,
    families: &[String],
    arithmetics: &[Arithmetic],
    out: &mut impl Write,
) -> Result<Vec<Line>> {
    let all = cases(grid);
    let unknown = families
        .iter()
        .find(|name| !all.iter().any(|(family, _)| family == name));
    ensure!(
        unknown.is_none(),
        "`{}` has no bench; there are {}",
        unknown.map_or("", String::as_str),
        families_of(&all)
    );
    let mut lines: Vec<Line> = Vec::new();
    writeln!(
        out,
        "{:>10} {:>21} {:>9} {:>7} {:>8}  kernel",
        "median", "p20 … p80", "rate", "", "ceiling"
    )?;
    for &arithmetic in arithmetics {
        device.allow_tf32(arithmetic == Arithmetic::Tf32);
        for (family, make) in all.iter().filter(|(family, _)| arithmetic.is_for(family, device)) {
            let chosen = families.is_empty() || families.iter().any(|name| name == family);
            if !chosen && !is_ceiling(family, arithmetic, &lines) {
                continue;
            }
            let case = make(device, arithmetic.dtype()).with_context(|| format!("the {family} bench"))?;
            let line = measure(device, case, arithmetic, &lines)?;
            writeln!(out, "{}", text(&line))?;
            lines.push(line);
        }
    }
    Ok(lines)
}

/// A copy and the first product are timed for every choice of families: the others are measured against them.
fn is_ceiling(family: &str, arithmetic: Arithmetic, lines: &[Line]) -> bool {
    let first = !lines
        .iter()
        .any(|line| line.family == family && line.dtype == arithmetic.name());
    first && matches!(family, "copy" | "gemm")
}

fn families_of(all: &[(&'static str, cases::Make)]) -> String {
    let mut names: Vec<&str> = all.iter().map(|(family, _)| *family).collect();
    names.dedup();
    names.join(", ")
}

fn measure(device: &Device, mut case: Case, arithmetic: Arithmetic, lines: &[Line]) -> Result<Line> {
    let name = case.name();
    let timing = time(device, &mut case.run).with_context(|| format!("{name} in {}", arithmetic.name()))?;
    let (unit, work, reference) = match case.work {
        Work::Flops(flops) => ("TFLOP/s", flops / 1e12, "gemm"),
        Work::Bytes(bytes) => ("GB/s", bytes / 1e9, "copy"),
    };
    let rate = work / timing.median;
    let same = lines
        .iter()
        .filter(|line| line.family == reference && line.dtype == arithmetic.name());
    let ceiling = same.map(|line| line.rate).reduce(f64::max);
    Ok(Line {
        family: case.family,
        name,
        dtype: arithmetic.name(),
        seconds: [timing.median, timing.p20, timing.p80],
        samples: timing.samples,
        unit,
        rate,
        percent: ceiling.map(|ceiling| 100.0 * rate / ceiling),
    })
}

fn text(line: &Line) -> String {
    let [median, p20, p80] = line.seconds.map(duration);
    let percent = line
        .percent
        .map_or("ceiling".into(), |percent| format!("{percent:.0} %"));
    let (rate, unit, dtype, name) = (line.rate, line.unit, line.dtype, &line.name);
    format!(
        "{median:>10} {:>21} {rate:>9.3} {unit:<7} {percent:>8}  {dtype} {name}",
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

    #[test]
    fn a_family_is_measured_against_a_copy_and_a_product_of_the_same_run() {
        let mut out = Vec::new();
        let lines = run(
            &Device::cpu(),
            Grid::Small,
            &["optimizer".into()],
            &[Arithmetic::Bf16],
            &mut out,
        )
        .unwrap();
        let families: Vec<&str> = lines.iter().map(|line| line.family).collect();
        assert_eq!(families, ["copy", "gemm", "optimizer"]);
        assert!(lines[2].percent.is_some_and(|percent| percent > 0.0), "{lines:?}");
        assert_eq!(String::from_utf8(out).unwrap().lines().count(), 4);
    }

    #[test]
    fn an_unknown_family_is_refused_with_those_there_are() {
        let error = run(
            &Device::cpu(),
            Grid::Small,
            &["softmax".into()],
            &[Arithmetic::F32],
            &mut Vec::new(),
        );
        let text = error.unwrap_err().to_string();
        assert!(text.contains("softmax") && text.contains("attention"), "{text}");
    }
}

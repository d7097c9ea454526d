//! Samples on request, so that a reference in another program can be timed in turn with ours.
//!
//! Lines in, one JSON object out for each: `list` gives each case's family; `open INDEX DTYPE` makes a case, warms it up
//! and tells what it took beside its arguments; `sample` takes one sample of it. An error is `{"error": "…"}`, and the next
//! line is read.

use super::arithmetic::Arithmetic;
use super::cases::{Case, Work, cases};
use super::shapes::Grid;
use super::timing::Sampler;
use anyhow::{Context, Result, bail};
use kernels::Device;
use serde_json::{Value, json};
use std::io::{BufRead, Write};

type Run = Box<dyn FnMut() -> Result<()>>;

/// Answers `input`'s lines until it ends.
///
/// # Errors
/// An input or output that breaks off.
pub fn serve(device: &Device, grid: Grid, input: impl BufRead, mut output: impl Write) -> Result<()> {
    let mut open: Option<Sampler<'_, Run>> = None;
    for line in input.lines() {
        let answer = answer(device, grid, line?.trim(), &mut open);
        let answer = answer.unwrap_or_else(|error| json!({ "error": format!("{error:#}") }));
        writeln!(output, "{answer}")?;
        output.flush()?;
    }
    Ok(())
}

fn answer<'a>(device: &'a Device, grid: Grid, line: &str, open: &mut Option<Sampler<'a, Run>>) -> Result<Value> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["list"] => {
            let families: Vec<&str> = cases(grid).iter().map(|(family, _)| *family).collect();
            Ok(json!({ "families": families }))
        }
        ["open", index, dtype] => {
            // The last case's memory goes before the next one's is taken.
            *open = None;
            let (family, make) = cases(grid).into_iter().nth(index.parse()?).context("no such case")?;
            let arithmetic = Arithmetic::named(dtype).filter(|one| one.is_for(family, device));
            let arithmetic = arithmetic.with_context(|| format!("{family} is not timed in `{dtype}` here"))?;
            device.allow_tf32(arithmetic == Arithmetic::Tf32);
            let case = make(device, arithmetic.dtype())?;
            let mut about = about(&case, arithmetic);
            device.reset_peaks();
            let held = device.memory().in_use;
            *open = Some(Sampler::new(device, case.run)?);
            about["workspace_bytes"] = json!(device.memory().peak_in_use - held);
            Ok(about)
        }
        ["sample"] => {
            let sampler = open.as_mut().context("`open` a case first")?;
            Ok(json!({ "seconds": sampler.sample()? }))
        }
        _ => bail!("`{line}` is not understood; expected `list`, `open INDEX DTYPE` or `sample`"),
    }
}

fn about(case: &Case, arithmetic: Arithmetic) -> Value {
    let (unit, work) = match case.work {
        Work::Flops(flops) => ("flops", flops),
        Work::Bytes(bytes) => ("bytes", bytes),
    };
    json!({
        "family": case.family, "kernel": case.kernel, "variant": case.variant, "shape": case.shape,
        "dtype": arithmetic.name(), "name": case.name(), "unit": unit, "work": work,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_answered_in_turn_and_errors_end_nothing() {
        let input = "list\nsample\nopen 2 bf16\nsample\nopen 2 f8\nopen 999 f32\nnonsense\n";
        let mut output = Vec::new();
        serve(&Device::cpu(), Grid::Small, input.as_bytes(), &mut output).unwrap();
        let answers: Vec<Value> = String::from_utf8(output)
            .unwrap()
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        assert_eq!(answers.len(), 7);
        assert!(answers[0]["families"].as_array().unwrap().len() > 10);
        assert_eq!(
            (&answers[2]["kernel"], &answers[2]["dtype"]),
            (&json!("gemm"), &json!("bf16"))
        );
        assert!(answers[2]["workspace_bytes"].is_u64(), "{:?}", answers[2]);
        assert!(answers[3]["seconds"].as_f64().unwrap() > 0.0);
        for wrong in [1, 4, 5, 6] {
            assert!(answers[wrong]["error"].is_string(), "{:?}", answers[wrong]);
        }
    }
}

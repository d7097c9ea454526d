//! Samples on request, so that a reference in another program can be timed in turn with ours.
//!
//! Lines in, one JSON object out for each: `list` gives the number of cases; `open INDEX DTYPE` makes a case, warms it up
//! and tells what it took beside its arguments; `sample` takes one sample of it. An error is `{"error": "…"}`, and the next
//! line is read.

use super::cases::{Case, Work, cases};
use super::shapes::Grid;
use super::timing::Sampler;
use anyhow::{Context, Result, bail};
use kernels::{DType, Device};
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
        ["list"] => Ok(json!({ "cases": cases(grid).len() })),
        ["open", index, dtype] => {
            // The last case's memory goes before the next one's is taken.
            *open = None;
            let (_, make) = cases(grid).into_iter().nth(index.parse()?).context("no such case")?;
            let case = make(device, dtype_of(dtype)?)?;
            let mut about = about(&case);
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

fn dtype_of(name: &str) -> Result<DType> {
    let known = [DType::F32, DType::BF16];
    let found = known.into_iter().find(|dtype| dtype.name() == name);
    found.with_context(|| format!("`{name}` is not timed; expected f32 or bf16"))
}

fn about(case: &Case) -> Value {
    let (unit, work) = match case.work {
        Work::Flops(flops) => ("flops", flops),
        Work::Bytes(bytes) => ("bytes", bytes),
    };
    json!({
        "family": case.family, "kernel": case.kernel, "variant": case.variant, "shape": case.shape,
        "dtype": case.dtype.name(), "name": case.name(), "unit": unit, "work": work,
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
        assert!(answers[0]["cases"].as_u64().unwrap() > 10);
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

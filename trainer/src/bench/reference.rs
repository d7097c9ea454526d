//! A reference in another program, PyTorch, whose samples are taken in turn with ours.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// What the Python runs; its head describes the lines that pass.
const SCRIPT: &str = include_str!("../../../benches/references.py");

/// One reference for a case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Found {
    /// What it is called.
    pub(super) name: String,
    /// GPU memory it takes beside arguments and results; None where that is not known.
    pub(super) workspace_bytes: Option<u64>,
}

/// The running program.
#[derive(Debug)]
pub struct Reference {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Reference {
    /// Starts `python`, which has PyTorch, for a device as bench names it.
    ///
    /// # Errors
    /// A program that cannot be started.
    pub fn start(python: &Path, device: &str) -> Result<Reference> {
        let device = if device.starts_with("cuda") { device } else { "cpu" };
        let mut command = Command::new(python);
        command.args(["-W", "ignore", "-c", SCRIPT, device]);
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = started.with_context(|| format!("{}: cannot be started", python.display()))?;
        let pipes = (child.stdin.take(), child.stdout.take());
        let (Some(input), Some(output)) = pipes else {
            bail!("{}: no pipes", python.display());
        };
        let output = BufReader::new(output);
        Ok(Reference { child, input, output })
    }

    /// The references for a case; none where PyTorch has no kernel for it.
    pub(super) fn open(&mut self, case: &Value) -> Result<Vec<Found>> {
        let mut answer = self.ask(case)?;
        if answer.get("error").is_some() {
            return Ok(Vec::new());
        }
        serde_json::from_value(answer["references"].take()).context("the reference's answer")
    }

    /// Seconds per call of one sample.
    pub(super) fn sample(&mut self, name: &str) -> Result<f64> {
        let answer = self.ask(&json!({ "sample": name }))?;
        let seconds = answer["seconds"].as_f64();
        seconds.with_context(|| format!("{name}: {answer}"))
    }

    fn ask(&mut self, question: &Value) -> Result<Value> {
        writeln!(self.input, "{question}").and_then(|()| self.input.flush()).or_else(|error| self.ended(error))?;
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            self.ended(std::io::ErrorKind::UnexpectedEof.into())?;
        }
        serde_json::from_str(&line).with_context(|| format!("the reference said `{}`", line.trim()))
    }

    fn ended(&mut self, error: std::io::Error) -> Result<()> {
        let status = self.child.wait()?;
        bail!("the reference ended ({status}, {error}); --reference needs a Python in which `import torch` works")
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        // It may have ended by itself; there is nobody to tell.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_explained() {
        let error = Reference::start(Path::new("no/such/python"), "cpu").unwrap_err();
        assert!(error.to_string().contains("no/such/python"), "{error}");
        let mut silent = Reference::start(Path::new("true"), "cpu").unwrap();
        let error = silent.open(&json!({})).unwrap_err();
        assert!(error.to_string().contains("import torch"), "{error}");
    }

    #[test]
    fn an_answer_that_is_none_is_shown() {
        let mut echo = Reference::start(Path::new("echo"), "cpu").unwrap();
        let error = format!("{:#}", echo.open(&json!({})).unwrap_err());
        assert!(error.contains("the reference"), "{error}");
    }
}

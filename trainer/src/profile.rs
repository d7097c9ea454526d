//! Where a training step's time goes: a table of kernels and a trace for Chrome's viewer (`chrome://tracing`, ui.perfetto.dev).

use crate::phases::Phase;
use crate::run_folder::write_whole;
use anyhow::{Context, Result};
use kernels::profile::{self, Event};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

/// Where profiles lie in a run's folder.
pub const FOLDER: &str = "profile";

/// Steps of a phase that are let pass first, as memory is taken in them.
const WARM_UP: usize = 3;
/// Steps that are recorded.
const STEPS: usize = 10;

/// Records some steps of each phase.
#[derive(Debug)]
pub struct Profiler {
    folder: PathBuf,
    /// The phase that is under way, its steps so far, and the seconds of those recorded.
    seen: Option<(Phase, usize, f64)>,
}

impl Profiler {
    /// One that writes into this folder.
    pub fn into(folder: PathBuf) -> Profiler {
        Profiler { folder, seen: None }
    }

    /// Told of each step when it is over, and of the seconds it took.
    pub fn see(&mut self, phase: Phase, seconds: f64) -> Result<()> {
        let (steps, sum) = match self.seen {
            Some((known, steps, sum)) if known == phase => (steps + 1, sum),
            _ => (1, 0.0),
        };
        let sum = if steps > WARM_UP { sum + seconds } else { 0.0 };
        self.seen = Some((phase, steps, sum));
        match steps {
            WARM_UP => profile::begin(),
            steps if steps == WARM_UP + STEPS => self.write(phase, sum)?,
            _ => {}
        }
        Ok(())
    }

    fn write(&self, phase: Phase, seconds: f64) -> Result<()> {
        let events = profile::end();
        std::fs::create_dir_all(&self.folder).with_context(|| self.folder.display().to_string())?;
        let path = |ending: &str| self.folder.join(format!("{}.{ending}", phase.name()));
        write_whole(&path("txt"), table(&events, STEPS, seconds).as_bytes())?;
        write_whole(&path("json"), trace(&events).to_string().as_bytes())
    }
}

/// All calls of one kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sum {
    calls: usize,
    seconds: f64,
    flops: f64,
    bytes: f64,
}

/// A line per kernel, the longest first: calls and milliseconds per step, the share of `seconds`, the time of all `steps`
/// together, and what was computed and moved in a second. Kernels that run side by side add up to more than that time.
pub fn table(events: &[Event], steps: usize, seconds: f64) -> String {
    let mut sums = BTreeMap::<&str, Sum>::new();
    for event in events {
        let sum = sums.entry(event.kernel).or_default();
        sum.calls += 1;
        sum.seconds += event.seconds;
        sum.flops += event.flops;
        sum.bytes += event.bytes;
    }
    let inside: f64 = sums.values().map(|sum| sum.seconds).sum();
    let mut rows: Vec<(&str, Sum)> = sums.into_iter().collect();
    rows.sort_by(|a, b| b.1.seconds.total_cmp(&a.1.seconds));
    let each = |count: f64| count / steps.max(1) as f64;
    let mut text =
        format!("{:<24} {:>8} {:>10} {:>7} {:>9} {:>8}\n", "kernel", "calls", "ms a step", "share", "GFLOP/s", "GB/s");
    let rate = |work: f64, seconds: f64| match work > 0.0 {
        true => format!("{:.1}", work / seconds.max(1e-12) / 1e9),
        false => "-".into(),
    };
    for (kernel, sum) in rows {
        let _ = writeln!(
            text,
            "{kernel:<24} {:>8.1} {:>10.3} {:>5.1} % {:>9} {:>8}",
            each(sum.calls as f64),
            1e3 * each(sum.seconds),
            100.0 * sum.seconds / seconds,
            rate(sum.flops, sum.seconds),
            rate(sum.bytes, sum.seconds),
        );
    }
    let rest = seconds - inside;
    let share = 100.0 * rest / seconds;
    let _ = writeln!(text, "{:<24} {:>8} {:>10.3} {share:>5.1} %", "outside of kernels", "", 1e3 * each(rest));
    let _ = writeln!(text, "{:<24} {:>8} {:>10.3} {:>5.1} %", "a step", "", 1e3 * each(seconds), 100.0);
    text
}

/// The events in Chrome's trace format: complete events, times in microseconds, threads as rows.
pub fn trace(events: &[Event]) -> Value {
    let event = |event: &Event| {
        json!({
            "name": event.kernel, "ph": "X", "pid": 0, "tid": event.thread, "ts": 1e6 * event.start, "dur": 1e6 * event.seconds,
            "args": { "flops": event.flops, "bytes": event.bytes },
        })
    };
    json!({ "displayTimeUnit": "ms", "traceEvents": events.iter().map(event).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kernel: &'static str, seconds: f64, flops: f64) -> Event {
        Event { kernel, thread: 1, start: 0.5, seconds, flops, bytes: 4e9 * seconds }
    }

    #[test]
    fn a_table_adds_up_to_the_time_and_a_trace_has_every_call() {
        let events = [event("add", 0.1, 0.0), event("gemm", 0.3, 6e9), event("gemm", 0.3, 6e9)];
        let table = table(&events, 2, 1.0);
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["gemm", "1.0", "300.000", "60.0", "%", "20.0", "4.0"]);
        assert_eq!(lines[2], ["add", "0.5", "50.000", "10.0", "%", "-", "4.0"]);
        assert_eq!(lines[3], ["outside", "of", "kernels", "150.000", "30.0", "%"]);
        let trace = trace(&events);
        assert_eq!(trace["traceEvents"].as_array().map(Vec::len), Some(3));
        assert_eq!((&trace["traceEvents"][1]["dur"], &trace["traceEvents"][1]["tid"]), (&json!(3e5), &json!(1)));
    }
}

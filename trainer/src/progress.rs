//! Progress on standard error: a bar on a terminal, a plain line every few seconds elsewhere.

use crate::memory;
use crate::metrics::{EVAL_LOSS, StepMetrics};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Time between plain lines.
const EVERY: Duration = Duration::from_secs(5);
/// Weight of the newest value in those shown.
const SMOOTHING: f64 = 0.1;

/// Shows how far a phase is, its loss, its speed and the time left.
pub struct Progress {
    phase: String,
    steps: usize,
    /// Steps taken before this process.
    before: usize,
    done: usize,
    samples: usize,
    loss: Option<f64>,
    eval_loss: Option<f64>,
    tokens_per_s: Option<f64>,
    data_wait: Option<f64>,
    mfu: Option<f64>,
    memory: Option<u64>,
    started: Instant,
    output: Output,
}

enum Output {
    Bar(ProgressBar),
    Lines { out: Box<dyn Write + Send>, every: Duration, last: Instant },
}

impl Progress {
    /// Progress over `steps` steps of `phase`, of which `before` were taken before, on standard error.
    pub fn new(phase: &str, steps: usize, before: usize) -> Progress {
        if !std::io::stderr().is_terminal() {
            let mut progress = Progress::lines(phase, steps, Box::new(std::io::stderr()), EVERY);
            (progress.before, progress.done) = (before, before);
            return progress;
        }
        let bar = ProgressBar::new(steps as u64);
        let style = ProgressStyle::with_template("{prefix} {bar:6} {pos}/{len}  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(phase.to_string());
        bar.set_position(before as u64);
        let progress = Progress::with(phase, steps, Output::Bar(bar));
        Progress { before, done: before, ..progress }
    }

    /// Progress as plain lines on `out`, at most one per `every`.
    pub fn lines(phase: &str, steps: usize, out: Box<dyn Write + Send>, every: Duration) -> Progress {
        let last = Instant::now();
        Progress::with(phase, steps, Output::Lines { out, every, last })
    }

    fn with(phase: &str, steps: usize, output: Output) -> Progress {
        Progress {
            phase: phase.into(),
            steps,
            before: 0,
            done: 0,
            samples: 0,
            loss: None,
            eval_loss: None,
            tokens_per_s: None,
            data_wait: None,
            mfu: None,
            memory: None,
            started: Instant::now(),
            output,
        }
    }

    /// What a step of training was measured at, shown from the next [`Progress::step`] on.
    pub fn measured(&mut self, line: &StepMetrics) {
        for (shown, new) in [
            (&mut self.tokens_per_s, line.tokens_per_s),
            (&mut self.data_wait, line.data_wait_share),
            (&mut self.mfu, line.mfu),
        ] {
            smooth(shown, new);
        }
        self.memory = line.memory_bytes;
        self.eval_loss = line.parts.get(EVAL_LOSS).copied().or(self.eval_loss);
    }

    /// One more step is done, with this loss if it is the phase's own, over so many images.
    pub fn step(&mut self, loss: Option<f64>, samples: usize) {
        self.done += 1;
        self.samples += samples;
        smooth(&mut self.loss, loss);
        let status = self.status();
        match &mut self.output {
            Output::Bar(bar) => {
                bar.set_message(status);
                bar.inc(1);
            }
            Output::Lines { out, every, last } => {
                if last.elapsed() >= *every {
                    *last = Instant::now();
                    // A closed standard error is no reason to stop training.
                    let _ = writeln!(out, "{} step {}/{}  {status}", self.phase, self.done, self.steps);
                }
            }
        }
    }

    /// Ends with one plain line: steps, time, loss and speed.
    pub fn finish(mut self) {
        let time = duration(self.started.elapsed());
        let named = [("loss", self.loss), (EVAL_LOSS, self.eval_loss)];
        let named = named.into_iter().filter_map(|(name, loss)| Some(format!("{name} {:.3}, ", loss?)));
        let loss: String = named.collect();
        let line =
            format!("{}: {} steps in {time}, {loss}{:.0} samples/s", self.phase, self.done - self.before, self.speed());
        match &mut self.output {
            Output::Bar(bar) => {
                bar.finish_and_clear();
                errln!("{line}");
            }
            Output::Lines { out, .. } => {
                // As in `step`.
                let _ = writeln!(out, "{line}");
            }
        }
    }

    fn speed(&self) -> f64 {
        self.samples as f64 / self.started.elapsed().as_secs_f64().max(1e-9)
    }

    fn status(&self) -> String {
        let left = self
            .started
            .elapsed()
            .mul_f64(self.steps.saturating_sub(self.done) as f64 / (self.done - self.before).max(1) as f64);
        let share = |name: &str, value: Option<f64>| value.map(|value| format!("{name} {:.0} %", 100.0 * value));
        let speed = match self.tokens_per_s {
            Some(tokens) => format!("{tokens:.0} tokens/s"),
            None => format!("{:.0} samples/s", self.speed()),
        };
        let parts = [
            self.loss.map(|loss| format!("loss {loss:.3}")),
            self.eval_loss.map(|loss| format!("{EVAL_LOSS} {loss:.3}")),
            Some(speed),
            share("data wait", self.data_wait),
            self.memory.map(|bytes| format!("mem {}", memory::size(bytes))),
            share("MFU", self.mfu),
            Some(format!("ETA {}", duration(left))),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join("  ")
    }
}

/// Moves what is shown towards what is new.
fn smooth(shown: &mut Option<f64>, new: Option<f64>) {
    if let Some(new) = new {
        *shown = Some(shown.map_or(new, |shown| shown + SMOOTHING * (new - shown)));
    }
}

/// A time for people: `42s`, `3m 05s`, `2h 10m`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h {:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn run(every: Duration) -> Vec<String> {
        let page = Page::default();
        let mut progress = Progress::lines("phase1", 3, Box::new(page.clone()), every);
        for loss in [3.0, 2.0, 1.0] {
            progress.step(Some(loss), 8);
        }
        progress.finish();
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(String::from).collect()
    }

    #[test]
    fn plain_lines_hold_step_loss_speed_and_time_left() {
        let lines = run(Duration::ZERO);
        assert_eq!(lines.len(), 4);
        assert!(
            lines[0].starts_with("phase1 step 1/3  loss 3.000  ") && lines[0].contains(" samples/s  ETA "),
            "{}",
            lines[0]
        );
        assert!(lines[1].contains("loss 2.900"), "smoothed: {}", lines[1]);
        assert!(lines[2].ends_with("ETA 0s"), "{}", lines[2]);
        assert!(lines[3].starts_with("phase1: 3 steps in ") && !lines[3].contains('\x1b'), "{}", lines[3]);
    }

    #[test]
    fn a_line_of_training_fits_into_120_columns() {
        let page = Page::default();
        let mut progress = Progress::lines("phase2", 12_000, Box::new(page.clone()), Duration::ZERO);
        progress.measured(&StepMetrics {
            tokens_per_s: Some(123_456.7),
            data_wait_share: Some(0.014),
            memory_bytes: Some(108 << 20),
            mfu: Some(0.121),
            parts: [(EVAL_LOSS.to_string(), 2.5)].into(),
            ..StepMetrics::default()
        });
        progress.step(Some(3.0), 8);
        let line = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        let expected = "phase2 step 1/12000  loss 3.000  eval_loss 2.500  123457 tokens/s  data wait 1 %  mem 108.0 MiB  MFU 12 %  ETA ";
        assert!(line.starts_with(expected) && line.trim_end().chars().count() <= 120, "{line}");
    }

    #[test]
    fn lines_are_rare_and_the_last_always_comes() {
        assert_eq!(run(Duration::from_secs(3600)).len(), 1);
    }

    #[test]
    fn durations_are_readable() {
        let table = [(0.4, "0s"), (59.4, "59s"), (59.6, "1m 00s"), (185.0, "3m 05s"), (7800.0, "2h 10m")];
        for (seconds, text) in table {
            assert_eq!(duration(Duration::from_secs_f64(seconds)), text);
        }
    }
}

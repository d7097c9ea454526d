//! What was measured at every step, as charts.

use super::absent;
use super::chart::{Chart, number};
use super::curve::Curve;
use super::read::Files;
use crate::metrics::StepMetrics;

const NOTHING: &str = "No step was taken yet: metrics.jsonl is empty.";

/// A chart per phase: the loss and its parts.
pub(super) fn loss(run: &Files) -> String {
    let mut charts = String::new();
    for (_, phase) in phases(run) {
        let steps: Vec<&StepMetrics> = run.steps.iter().filter(|step| step.phase == phase).collect();
        let mut names: Vec<&str> = steps.iter().flat_map(|step| step.parts.keys()).map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        let of = |name: &str, value: &dyn Fn(&StepMetrics) -> Option<f64>| {
            Curve::new(name, steps.iter().filter_map(|step| Some((step.step as f64, value(step)?))))
        };
        let mut curves = vec![of("loss", &|step| Some(step.loss))];
        curves.extend(names.iter().map(|name| of(name, &|step| step.parts.get(*name).copied())));
        charts += &Chart {
            title: &format!("Loss of {phase}"),
            about: "Thin as measured, thick smoothed; the parts before they are weighted.",
            curves,
            marks: &mixed_in(run, &phase),
            format: number,
            may_be_log: true,
        }
        .html();
        let accuracy = of("accuracy", &|step| step.mean_token_accuracy.map(|share| 100.0 * share));
        charts += &Chart {
            title: &format!("Token accuracy of {phase}"),
            about: "Share of target tokens that are the model's first choice.",
            curves: vec![accuracy],
            marks: &[],
            format: percent,
            may_be_log: false,
        }
        .html();
    }
    framed(charts)
}

/// The learning rate and the gradient's norm.
pub(super) fn rate(run: &Files) -> String {
    let rate = Curve::exact("learning rate", all(run, |step| Some(step.lr)));
    let norm = Curve::new("gradient norm", all(run, |step| Some(step.grad_norm)));
    framed(
        over_run(run, ("Learning rate", "Of groups with factor 1."), rate, number, false)
            + &over_run(run, ("Gradient norm", "L2, before clipping."), norm, number, true),
    )
}

/// Speed, and what the device made of its time.
pub(super) fn throughput(run: &Files) -> String {
    let share = |value: Option<f64>| value.map(|share| 100.0 * share);
    let tokens = Curve::new("tokens/s", all(run, |step| step.tokens_per_s));
    let samples = Curve::new("images/s", all(run, |step| Some(step.samples_per_s)));
    let wait = Curve::new("data wait", all(run, |step| share(step.data_wait_share)));
    let mfu = Curve::new("MFU", all(run, |step| share(step.mfu)));
    let (of_tokens, of_images) = ("Of images and texts, without padding.", "Seen by the model.");
    let of_mfu = "What the model's products need, over what the device can do at the most.";
    framed(
        over_run(run, ("Tokens per second", of_tokens), tokens, number, false)
            + &over_run(run, ("Images per second", of_images), samples, number, false)
            + &over_run(run, ("Waiting for data", "Share of a step's time."), wait, percent, false)
            + &over_run(run, ("Model FLOP/s utilisation", of_mfu), mfu, percent, false),
    )
}

/// Memory step by step.
pub(super) fn memory(run: &Files) -> String {
    const MIB: f64 = (1 << 20) as f64;
    let held = Curve::exact("memory", all(run, |step| Some(step.memory_bytes? as f64 / MIB)));
    let about = "Of the process on a CPU; on a GPU the most that tensors have held there.";
    let chart = over_run(run, ("Memory", about), held, |value| format!("{} MiB", number(value)), false);
    match (chart.is_empty(), run.steps.is_empty()) {
        (true, false) => absent("How much memory the steps took is not known: metrics.jsonl does not say."),
        _ => framed(chart),
    }
}

fn percent(value: f64) -> String {
    format!("{} %", (10.0 * value).round() / 10.0)
}

fn framed(charts: String) -> String {
    match charts.is_empty() {
        true => absent(NOTHING),
        false => format!("<div class=\"charts\">\n{charts}</div>\n"),
    }
}

/// A metric over all steps of the run, counted through.
fn all(run: &Files, value: impl Fn(&StepMetrics) -> Option<f64>) -> impl Iterator<Item = (f64, f64)> {
    let points = run.steps.iter().enumerate();
    points.filter_map(move |(i, step)| Some((i as f64 + 1.0, value(step)?)))
}

fn over_run(
    run: &Files,
    (title, about): (&str, &str),
    curve: Curve,
    format: fn(f64) -> String,
    may_be_log: bool,
) -> String {
    let marks: Vec<(f64, String)> = phases(run).into_iter().skip(1).collect();
    Chart { title, about, curves: vec![curve], marks: &marks, format, may_be_log }.html()
}

/// The phases in their order, with the run's step at which each begins.
fn phases(run: &Files) -> Vec<(f64, String)> {
    let mut found: Vec<(f64, String)> = Vec::new();
    for (i, step) in run.steps.iter().enumerate() {
        if found.iter().all(|(_, phase)| *phase != step.phase) {
            found.push((i as f64 + 1.0, step.phase.clone()));
        }
    }
    found
}

/// Where steps on the first phase's losses begin to be taken in the midst of a later one.
fn mixed_in(run: &Files, phase: &str) -> Vec<(f64, String)> {
    let mut behind = run.steps.iter().skip_while(|step| step.phase == phase);
    let other = behind.next().filter(|_| run.steps.first().is_some_and(|first| first.phase == phase));
    let again = behind.find(|step| step.phase == phase);
    let mark = other.zip(again);
    mark.map(|(other, again)| (again.step as f64, format!("within {}", other.phase))).into_iter().collect()
}

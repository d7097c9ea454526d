//! What was measured at every step, as charts.

use super::absent;
use super::chart::{Chart, number};
use super::read::Files;
use crate::memory as bytes;
use crate::metrics::StepMetrics;
use crate::report::curve::Curve;

const NOTHING: &str = "No step was taken yet: metrics.jsonl is empty.";

/// A chart per phase: the loss and its parts.
pub(super) fn loss(run: &Files) -> String {
    let mut charts = String::new();
    for (_, phase) in phases(run) {
        let steps: Vec<&StepMetrics> = run.steps.iter().filter(|step| step.phase == phase).collect();
        let mut names: Vec<&str> = steps
            .iter()
            .flat_map(|step| step.parts.keys())
            .map(String::as_str)
            .collect();
        names.sort_unstable();
        names.dedup();
        let of = |name: &str, value: &dyn Fn(&StepMetrics) -> Option<f64>| {
            Curve::new(
                name,
                steps.iter().filter_map(|step| Some((step.step as f64, value(step)?))),
            )
        };
        let mut curves = vec![of("loss", &|step| Some(step.loss))];
        curves.extend(
            names
                .iter()
                .map(|name| of(name, &|step| step.parts.get(*name).copied())),
        );
        charts += &Chart {
            title: &format!("Loss of {phase}"),
            about: "Thin as measured, thick smoothed; the parts before they are weighted.",
            curves,
            marks: &[],
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
    let chart = |title, about, curve, may_be_log| over_run(run, title, about, vec![curve], number, may_be_log);
    let rate = all(run, "learning rate", |step| Some(step.lr));
    let norm = all(run, "gradient norm", |step| Some(step.grad_norm));
    framed(
        chart("Learning rate", "Of groups with factor 1.", rate, false)
            + &chart("Gradient norm", "L2, before clipping.", norm, true),
    )
}

/// Speed, and what the device made of its time.
pub(super) fn throughput(run: &Files) -> String {
    let tokens = all(run, "tokens/s", |step| step.tokens_per_s);
    let samples = all(run, "images/s", |step| Some(step.samples_per_s));
    let wait = all(run, "data wait", |step| step.data_wait_share.map(|share| 100.0 * share));
    let mfu = all(run, "MFU", |step| step.mfu.map(|share| 100.0 * share));
    framed(
        over_run(
            run,
            "Tokens per second",
            "Of images and texts, without padding.",
            vec![tokens],
            number,
            false,
        ) + &over_run(run, "Images per second", "", vec![samples], number, false)
            + &over_run(
                run,
                "Waiting for data",
                "Share of a step's time.",
                vec![wait],
                percent,
                false,
            )
            + &over_run(
                run,
                "Model FLOP/s utilisation",
                "What the model's products need, over what the device can do at the most.",
                vec![mfu],
                percent,
                false,
            ),
    )
}

/// Memory step by step.
pub(super) fn memory(run: &Files) -> String {
    let held = all(run, "memory", |step| step.memory_bytes.map(|bytes| bytes as f64));
    let chart = over_run(
        run,
        "Memory",
        "Of the process on a CPU; on a GPU the most that tensors have held there.",
        vec![held],
        |value| bytes::size(value.max(0.0) as u64),
        false,
    );
    match (chart.is_empty(), run.steps.is_empty()) {
        (true, false) => absent("The system does not say how much memory was held."),
        _ => framed(chart),
    }
}

fn percent(value: f64) -> String {
    format!("{} %", number(value))
}

fn framed(charts: String) -> String {
    match charts.is_empty() {
        true => absent(NOTHING),
        false => format!("<div class=\"charts\">\n{charts}</div>\n"),
    }
}

/// A metric over all steps of the run, counted through.
fn all(run: &Files, name: &str, value: impl Fn(&StepMetrics) -> Option<f64>) -> Curve {
    let points = run.steps.iter().enumerate();
    Curve::new(
        name,
        points.filter_map(|(i, step)| Some((i as f64 + 1.0, value(step)?))),
    )
}

fn over_run(
    run: &Files,
    title: &str,
    about: &str,
    curves: Vec<Curve>,
    format: fn(f64) -> String,
    may_be_log: bool,
) -> String {
    let marks: Vec<(f64, String)> = phases(run).into_iter().skip(1).collect();
    let marks = &marks;
    Chart {
        title,
        about,
        curves,
        marks,
        format,
        may_be_log,
    }
    .html()
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

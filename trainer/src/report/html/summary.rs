//! The run in a few rows, and its recipe.

use super::read::Files;
use super::{absent, escape};
use crate::memory;
use crate::progress::duration;
use std::time::Duration;

pub(super) fn section(run: &Files) -> String {
    let rows = rows(run);
    let rows =
        rows.iter().map(|(name, value)| format!("<tr><th scope=\"row\">{name}</th><td>{}</td></tr>\n", escape(value)));
    let unknown = match run.summary {
        Some(_) => String::new(),
        None => absent("Device, parameters and time are not known: the folder has no summary.json."),
    };
    format!(
        "<table class=\"facts\">\n<tbody>\n{}</tbody>\n</table>\n{unknown}\
         <details>\n<summary>Recipe, with every default spelled out</summary>\n<pre tabindex=\"0\">{}</pre>\n</details>\n",
        rows.collect::<String>(),
        escape(&run.recipe)
    )
}

fn rows(run: &Files) -> Vec<(&'static str, String)> {
    let mut rows = vec![("run", run.name.clone()), ("steps", steps(run))];
    let Some(found) = &run.summary else { return rows };
    let memory = |bytes: u64| memory::size(bytes);
    rows.push(("device", format!("{}, {} threads", found.device, found.threads)));
    rows.push((
        "parameters",
        format!("{}, {} of them trainable, {}", grouped(found.parameters), grouped(found.trainable), found.dtype),
    ));
    rows.push((
        "time",
        match found.seconds {
            Some(seconds) => {
                let since = if found.goes_on { ", since the run was gone on with" } else { "" };
                format!("{}{since}", duration(Duration::try_from_secs_f64(seconds).unwrap_or_default()))
            }
            None => "under way, or stopped".into(),
        },
    ));
    rows.push((
        "peak memory",
        match found.peak_memory_bytes {
            Some(peak) => {
                let off = 100.0 * (peak as f64 / found.estimate_bytes.max(1) as f64 - 1.0);
                format!("{} ({off:+.0} % against the estimate of {})", memory(peak), memory(found.estimate_bytes))
            }
            None => format!("not known; estimated at {}", memory(found.estimate_bytes)),
        },
    ));
    if let Some(peak) = found.peak_flops {
        rows.push(("100 % MFU", format!("{:.3} TFLOP/s", peak / 1e12)));
    }
    rows.push(("Lenslet", found.version.clone()));
    rows
}

/// How many steps of each phase were taken.
fn steps(run: &Files) -> String {
    let mut phases: Vec<(&str, usize)> = Vec::new();
    for step in &run.steps {
        match phases.iter_mut().find(|(phase, _)| *phase == step.phase) {
            Some((_, count)) => *count += 1,
            None => phases.push((&step.phase, 1)),
        }
    }
    let phases: Vec<String> = phases.iter().map(|(phase, count)| format!("{count} on {phase}'s losses")).collect();
    match phases.is_empty() {
        true => "none yet".into(),
        false => phases.join(", "),
    }
}

/// A number with its thousands apart.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

//! Questions about held-out images: what the model said in the course of training, and where it looked.

use super::picture::picture;
use super::read::Files;
use super::{absent, escape};
use crate::report::samples::Shown;

/// Questions shown at the most.
const MOST: usize = 24;
/// Characters of a text that fits beside its name; that is shown whole; that is shown at all.
const SHORT: usize = 24;
const LONG: usize = 160;
const LONGEST: usize = 2000;
/// When questions are asked.
const TIMES: [&str; 3] = ["before training", "halfway", "after training"];

pub(super) fn answers(run: &Files) -> String {
    if run.samples.is_empty() {
        return absent("No questions were asked: the folder has no samples.json, or eval.samples is 0.");
    }
    let cards = run.samples.iter().take(MOST).map(|sample| card(run, sample));
    let more = match run.samples.len() {
        all if all > MOST => absent(&format!("These are the first {MOST} of {all}; all are in samples.md.")),
        _ => String::new(),
    };
    format!(
        "<p>{}</p>\n<div class=\"cards\">\n{}</div>\n{more}",
        escape(&progress(&run.samples)),
        cards.collect::<String>()
    )
}

/// How many answers were right each time.
fn progress(samples: &[Shown]) -> String {
    let count = |when: &&str| {
        let said: Vec<bool> =
            samples.iter().flat_map(|s| &s.said).filter(|s| s.when == **when).map(|s| s.right).collect();
        let right = said.iter().filter(|right| **right).count();
        (!said.is_empty()).then(|| format!("{right} of {} {when}", said.len()))
    };
    let counts: Vec<String> = TIMES.iter().filter_map(count).collect();
    match counts.is_empty() {
        true => "Nothing is answered yet.".into(),
        false => format!(
            "Right answers: {}. Right is what was expected, word for word; of a scene, any true description.",
            counts.join(", ")
        ),
    }
}

fn card(run: &Files, sample: &Shown) -> String {
    let asked_halfway = run.samples.iter().flat_map(|s| &s.said).any(|said| said.when == TIMES[1]);
    let expected_halfway = asked_halfway || run.steps.iter().any(|step| step.phase == "phase2");
    let times = TIMES.iter().filter(|when| **when != TIMES[1] || expected_halfway);
    let rows = times.map(|when| row(run, sample, when)).collect::<String>();
    let expected = sample.expected.as_ref().map_or(String::new(), |text| line("expected", text, ""));
    let before = sample.before.iter().map(|text| line("before", text, ""));
    let before = before.collect::<String>();
    let alt = format!("Image of the question: {}", sample.question);
    format!(
        "<article class=\"card\">\n{}\n<div>\n<h3>{}</h3>\n<dl>\n{before}{rows}{expected}</dl>\n</div>\n</article>\n",
        picture(&run.folder, &sample.image, &alt, 256),
        brief(&sample.question)
    )
}

fn row(run: &Files, sample: &Shown, when: &str) -> String {
    let said = sample.said.iter().find(|said| said.when == when);
    match (said, run.is_over()) {
        (Some(said), _) if said.right => line(when, &said.answer, "<dd class=\"right\">✓ right</dd>"),
        (Some(said), _) => line(when, &said.answer, "<dd class=\"wrong\">✗ wrong</dd>"),
        (None, true) => line(when, "not known: the run was gone on with later", ""),
        (None, false) => line(when, "not asked yet", ""),
    }
}

/// A name, a text and a mark; a long text stands below the others.
pub(super) fn line(name: &str, text: &str, mark: &str) -> String {
    let class = if text.chars().count() > SHORT { " class=\"long\"" } else { "" };
    format!("<div{class}><dt>{name}</dt><dd class=\"said\">{}</dd>{mark}</div>\n", words(text))
}

/// The beginning of a text.
pub(super) fn brief(text: &str) -> String {
    match text.trim() {
        "" => "(nothing)".into(),
        text if text.chars().count() > LONG => escape(&text.chars().take(LONG).chain(['…']).collect::<String>()),
        text => escape(text),
    }
}

/// A text that may be long or empty: of a long one the beginning, and the rest when asked for.
fn words(text: &str) -> String {
    let (text, count) = (text.trim(), text.trim().chars().count());
    let first = |most: usize| text.chars().take(most).collect::<String>();
    match count {
        0 => "<span class=\"muted\">(nothing)</span>".into(),
        1..=LONG => escape(text),
        _ => format!(
            "<details><summary>{}…</summary>{}{}</details>",
            escape(&first(LONG / 2)),
            escape(&first(LONGEST)),
            if count > LONGEST { "…" } else { "" }
        ),
    }
}

pub(super) fn attention(run: &Files) -> String {
    let seen = run.samples.iter().filter_map(|sample| Some((sample, sample.attention.as_ref()?)));
    let figures: Vec<String> = seen.take(MOST / 3).map(|(sample, name)| figure(run, sample, name)).collect();
    match figures.is_empty() {
        true => absent(
            "No pictures of attention: the run is not over, eval.attention is 0, or the decoder sees queries and no patches.",
        ),
        false => format!(
            "<p>Left the image; right, the weight that the question's last token gives each patch, the mean over blocks and \
             heads: bright where the model looks most.</p>\n<div class=\"figures\">\n{}</div>\n",
            figures.concat()
        ),
    }
}

fn figure(run: &Files, sample: &Shown, name: &str) -> String {
    let alt = format!("Image, and beside it the model's attention over it, asked: {}", sample.question);
    let answer = sample.said.last().map_or(String::new(), |said| format!(" → <b>{}</b>", brief(&said.answer)));
    format!(
        "<figure>\n{}\n<figcaption>{}{answer}</figcaption>\n</figure>\n",
        picture(&run.folder, name, &alt, 584),
        brief(&sample.question)
    )
}

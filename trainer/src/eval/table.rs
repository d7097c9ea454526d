//! The held-out table as people read it: each ability beside chance and a blank image.

use super::Figures;
use crate::report::table::Table;

/// Rows of the table: a name, the figure's key, and what guessing reaches, if that is known.
const ROWS: [(&str, &str, Option<f64>); 32] = [
    ("image -> text R@1", "retrieval.image_to_text.r1", None),
    ("image -> text R@5", "retrieval.image_to_text.r5", None),
    ("image -> text R@10", "retrieval.image_to_text.r10", None),
    ("text -> image R@1", "retrieval.text_to_image.r1", None),
    ("text -> image R@5", "retrieval.text_to_image.r5", None),
    ("text -> image R@10", "retrieval.text_to_image.r10", None),
    ("matching, random negatives", "matching.random.accuracy", Some(0.5)),
    ("matching, hard negatives", "matching.hard.accuracy", Some(0.5)),
    ("existence", "existence.accuracy", Some(0.5)),
    ("  random, accuracy", "existence.random.accuracy", Some(0.5)),
    ("  random, F1", "existence.random.f1", None),
    ("  popular, accuracy", "existence.popular.accuracy", Some(0.5)),
    ("  popular, F1", "existence.popular.f1", None),
    ("  adversarial, accuracy", "existence.adversarial.accuracy", Some(0.5)),
    ("  adversarial, F1", "existence.adversarial.f1", None),
    ("count", "count.accuracy", Some(0.2)),
    ("colour", "colour.accuracy", None),
    ("shape", "shape.accuracy", None),
    ("where (of nine places)", "where.accuracy", Some(1.0 / 9.0)),
    ("spatial", "spatial.accuracy", Some(0.5)),
    ("  left of", "spatial.left_of.accuracy", Some(0.5)),
    ("  right of", "spatial.right_of.accuracy", Some(0.5)),
    ("  above", "spatial.above.accuracy", Some(0.5)),
    ("  below", "spatial.below.accuracy", Some(0.5)),
    ("  in front of", "spatial.in_front_of.accuracy", Some(0.5)),
    ("  behind", "spatial.behind.accuracy", Some(0.5)),
    ("which of two relations", "choice.accuracy", Some(0.5)),
    ("captions wholly true", "caption.truth", None),
    ("captions true and complete", "caption.complete", None),
    ("hallucinated mentions (CHAIR)", "chair.mention", None),
    ("existence, unseen pairs", "compositional.existence.accuracy", Some(0.5)),
    ("captions true, unseen pairs", "compositional.caption.truth", None),
];

/// The rows that were measured, in percent; figures without a row of their own follow under their keys.
pub fn table(figures: &Figures) -> Table {
    let mut table = Table::new(["held out", "%", "95 %", "blank image", "chance"]);
    let mut row = |name: &str, key: &str, chance: Option<f64>| {
        let figure = |key: String| figures.get(&key).copied();
        let ends = figure(format!("interval.{key}.low")).zip(figure(format!("interval.{key}.high")));
        table.row([
            name.to_string(),
            percent(figure(key.into())),
            interval(ends),
            percent(figure(format!("control.blank.{key}"))),
            percent(chance),
        ]);
    };
    for (name, key, chance) in ROWS.into_iter().filter(|(_, key, _)| figures.contains_key(*key)) {
        row(name, key, chance);
    }
    for key in figures.keys().filter(|key| key.starts_with("answers.")) {
        row(key, key, None);
    }
    table
}

/// The table with what it rests on below: see [`notes`].
pub fn text(figures: &Figures) -> String {
    let mut text = table(figures).to_string();
    for note in notes(figures) {
        text += &format!("\n{note}");
    }
    text
}

/// What figures rest on, in sentences: how much was measured, and what could not be.
pub fn notes(figures: &Figures) -> Vec<String> {
    let items = |name: &str| figures.get(&format!("items.{name}")).map_or(0, |n| *n as usize);
    let [records, answers, pairs] = ["records", "answers", "pairs"].map(items);
    let mut notes = Vec::new();
    let mut note = |count: usize, text: String| {
        if count > 0 {
            notes.push(text);
        }
    };
    note(answers, format!("{answers} questions about {records} held-out records were asked"));
    note(pairs, format!("{pairs} held-out images were compared with their captions"));
    let (unasked, unread) = (items("unasked"), items("unread_pairs"));
    note(unasked, format!("{unasked} of {} questions could not be asked", answers + unasked));
    note(unread, format!("{unread} of {} held-out images could not be read", pairs + unread));
    let (bad, beyond) = (items("bad_records"), items("records_beyond_limit"));
    note(bad, format!("{bad} held-out records are bad and were left out"));
    let without = items("records_without_target");
    note(
        without,
        format!("{without} held-out records were left out, as data.max_tokens leaves them no token to predict"),
    );
    note(beyond, format!("eval.limit left out {beyond} of {} held-out records", records + beyond));
    let (unknown, words) = (items("unknown_words"), items("words"));
    let share = percent(Some(unknown as f64 / words.max(1) as f64));
    note(unknown, format!("{unknown} of {words} held-out words ({share} %) are not in the vocabulary"));
    let cut = items("cut_captions");
    note(cut, format!("{cut} captions are longer than the model reads and were cut"));
    let unsayable = items("unsayable");
    note(
        unsayable,
        format!(
            "{unsayable} of {answers} expected answers have words that the vocabulary lacks: none of them can be right"
        ),
    );
    notes
}

/// A figure times 100, or a dash.
pub fn percent(value: Option<f64>) -> String {
    let value = value.filter(|value| value.is_finite());
    value.map_or("-".into(), |value| format!("{:.1}", 100.0 * value))
}

/// The ends of an interval, times 100.
pub fn interval(ends: Option<(f64, f64)>) -> String {
    ends.map_or("-".into(), |(low, high)| format!("{} to {}", percent(Some(low)), percent(Some(high))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_stands_below_the_table() {
        let figures = [("answers", 8.0), ("records", 3.0), ("unasked", 2.0), ("unsayable", 1.0)];
        let figures = figures.map(|(name, count)| (format!("items.{name}"), count)).into();
        assert_eq!(
            notes(&figures),
            [
                "8 questions about 3 held-out records were asked",
                "2 of 10 questions could not be asked",
                "1 of 8 expected answers have words that the vocabulary lacks: none of them can be right",
            ]
        );
        assert!(text(&figures).ends_with("can be right") && notes(&Figures::new()).is_empty());
    }

    #[test]
    fn a_figure_stands_beside_its_control_and_chance() {
        let figures = Figures::from([
            ("existence.accuracy".into(), 0.975),
            ("interval.existence.accuracy.low".into(), 0.95),
            ("interval.existence.accuracy.high".into(), 0.9875),
            ("control.blank.existence.accuracy".into(), 0.5),
            ("answers.exact".into(), 0.25),
        ]);
        let text = table(&figures).to_string();
        let line =
            |start: &str| text.lines().find(|l| l.starts_with(start)).map(|l| l.split_whitespace().collect::<Vec<_>>());
        assert_eq!(line("existence"), Some(vec!["existence", "97.5", "95.0", "to", "98.8", "50.0", "50.0"]), "{text}");
        assert_eq!(line("answers.exact"), Some(vec!["answers.exact", "25.0", "-", "-", "-"]), "{text}");
        assert!(!text.contains("spatial"), "what was not measured is not shown: {text}");
    }
}

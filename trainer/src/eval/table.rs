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

/// A figure times 100, or a dash.
pub fn percent(value: Option<f64>) -> String {
    let value = value.filter(|value| value.is_finite());
    value.map_or("-".into(), |value| format!("{:.1}", 100.0 * value))
}

/// The ends of an interval, times 100.
pub fn interval(ends: Option<(f64, f64)>) -> String {
    ends.map_or("-".into(), |(low, high)| {
        format!("{} to {}", percent(Some(low)), percent(Some(high)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let line = |start: &str| {
            text.lines()
                .find(|l| l.starts_with(start))
                .map(|l| l.split_whitespace().collect::<Vec<_>>())
        };
        assert_eq!(
            line("existence"),
            Some(vec!["existence", "97.5", "95.0", "to", "98.8", "50.0", "50.0"]),
            "{text}"
        );
        assert_eq!(
            line("answers.exact"),
            Some(vec!["answers.exact", "25.0", "-", "-", "-"]),
            "{text}"
        );
        assert!(!text.contains("spatial"), "what was not measured is not shown: {text}");
    }
}

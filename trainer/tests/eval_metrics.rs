//! Metrics against the published scorers: `fixtures/metrics.py` says where each figure is from.

use lenslet::eval::metrics::caption_tokens::tokens;
use lenslet::eval::metrics::nlvr::Answered;
use lenslet::eval::metrics::{Measure, bleu, cider, nlvr, vqa, yes_no};
use serde::Deserialize;
use std::path::Path;

#[derive(Deserialize)]
struct Fixture {
    words: Vec<Words>,
    captions: Vec<Captions>,
    normalised: Vec<Normalised>,
    vqa: Vec<Vqa>,
    pope: Pope,
    nlvr: Nlvr,
}

#[derive(Deserialize)]
struct Words {
    text: String,
    words: Vec<String>,
}

#[derive(Deserialize)]
struct Captions {
    pairs: Vec<Pair>,
    bleu: [f64; 4],
    cider: f64,
    each: Vec<f64>,
}

#[derive(Deserialize)]
struct Pair {
    caption: String,
    references: Vec<String>,
}

#[derive(Deserialize)]
struct Normalised {
    answer: String,
    normalised: String,
}

#[derive(Deserialize)]
struct Vqa {
    answer: String,
    people: Vec<String>,
    accuracy: f64,
}

#[derive(Deserialize)]
struct Pope {
    cases: Vec<PopeCase>,
    reads: Vec<String>,
    figures: std::collections::BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct PopeCase {
    answer: String,
    label: String,
}

#[derive(Deserialize)]
struct Nlvr {
    examples: Vec<Example>,
    accuracy: f64,
    consistency: f64,
}

#[derive(Deserialize)]
struct Example {
    identifier: String,
    label: bool,
    said: Vec<bool>,
}

fn fixture() -> Fixture {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/metrics.json");
    serde_json::from_slice(&std::fs::read(path).expect("the fixture")).expect("JSON")
}

fn close(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() < 1e-9, "{what}: {found}, the reference has {expected}");
}

fn value(measures: &[Measure], name: &str) -> f64 {
    let found = measures.iter().find(|measure| measure.name == name);
    found.unwrap_or_else(|| panic!("no {name}")).value()
}

#[test]
fn captions_have_the_treebanks_words() {
    for Words { text, words } in fixture().words {
        assert_eq!(tokens(&text), words, "{text}");
    }
}

#[test]
fn bleu_and_cider_are_pycocoevalcaps() {
    for set in fixture().captions {
        // Given as words already: the reference splits at spaces.
        let words = |text: &String| text.split_whitespace().map(String::from).collect::<Vec<_>>();
        let said: Vec<_> = set.pairs.iter().map(|pair| words(&pair.caption)).collect();
        let references: Vec<Vec<_>> = set.pairs.iter().map(|p| p.references.iter().map(words).collect()).collect();
        let rows = said.iter().zip(&references).enumerate();
        let measures = bleu::measures(&rows.map(|(i, (s, r))| (i, bleu::row(s, r))).collect::<Vec<_>>());
        for (n, expected) in set.bleu.iter().enumerate() {
            let name = format!("bleu{}", n + 1);
            close(value(&measures, &name), *expected, &format!("{name} of {}", said.len()));
        }
        let scores = cider::scores(&said, &references);
        for (i, (found, expected)) in scores.iter().zip(&set.each).enumerate() {
            close(*found, *expected, &format!("CIDEr of caption {i} of {}", said.len()));
        }
        close(scores.iter().sum::<f64>() / scores.len() as f64, set.cider, "CIDEr");
    }
}

#[test]
fn short_answers_compare_as_on_the_challenges_server() {
    let Fixture { normalised, vqa, .. } = fixture();
    for case in normalised {
        // Of an answer that is but an article or a point the server leaves nothing, so that `A` and silence are one.
        let expected = match case.normalised.as_str() {
            "" => case.answer.trim().to_lowercase(),
            normalised => normalised.into(),
        };
        assert_eq!(vqa::normalised(&case.answer), expected, "{:?}", case.answer);
    }
    for case in vqa {
        close(vqa::accuracy(&case.answer, &case.people), case.accuracy, &case.answer);
    }
}

#[test]
fn pope_reads_and_counts_as_its_script() {
    let Pope { cases, reads, figures } = fixture().pope;
    let found: Vec<&str> = cases.iter().map(|case| yes_no::pope_reads(&case.answer)).collect();
    assert_eq!(found, reads);
    let rows = cases.iter().zip(&found).enumerate();
    let rows: Vec<_> = rows.map(|(i, (case, read))| (i, case.label == "yes", *read)).collect();
    let measures = yes_no::measures("", &rows);
    for (name, expected) in &figures {
        close(value(&measures, name), *expected, name);
    }
    assert_eq!(measures.len(), figures.len());
}

#[test]
fn nlvr_counts_pictures_and_whole_sentences() {
    let Nlvr { examples, accuracy, consistency } = fixture().nlvr;
    let answered = |example: &Example| {
        let sentence = example.identifier.split('-').next().and_then(|n| n.parse().ok()).expect("a number");
        let label = example.label;
        let one = move |said: &bool| Answered { sentence, label, right: *said == label };
        example.said.iter().map(one).collect::<Vec<_>>()
    };
    let measures = nlvr::measures(&examples.iter().flat_map(answered).collect::<Vec<_>>());
    close(value(&measures, "accuracy"), accuracy, "accuracy");
    close(value(&measures, "consistency"), consistency, "consistency");
}

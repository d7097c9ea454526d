//! Measuring on conversations from disk that were kept out of training.

use super::contrastive::{comparer, retrieval};
use super::metrics::{Measure, guess};
use super::teacher_forced::{Answer, Expected, answers};
use super::{Figures, figures};
use crate::data::bad_records::BadRecords;
use crate::data::corpus::Corpus;
use crate::data::{Conversation, Pair, Prepare, UnknownWords, blank};
use anyhow::{Result, bail};
use engine::{Kind, Params};
use model::{Tokenizer, Vlm};

/// Retrieval between the images and their first answers, read as captions. Empty without a Q-Former.
pub fn alignment(vlm: &Vlm, params: &Params, prepare: &Prepare, heldout: &Corpus, count: usize) -> Result<Figures> {
    let Some(comparer) = comparer(vlm, params, prepare) else {
        return Ok(Figures::new());
    };
    let (pairs, mut found) = pairs(params, heldout, count, &prepare.tokenizer)?;
    found.extend(retrieval(&comparer, &pairs)?);
    Ok(found)
}

/// The first held-out records as pairs of image and caption, with the counts of what could not be read and what is unknown.
///
/// # Errors
/// When not one can be read.
pub fn pairs(params: &Params, heldout: &Corpus, count: usize, tokenizer: &Tokenizer) -> Result<(Vec<Pair>, Figures)> {
    let (mut pairs, mut bad) = (Vec::new(), BadRecords::default());
    for sample in heldout.samples.iter().take(count) {
        match heldout.pair(sample) {
            Ok(pair) => pairs.push(pair),
            Err(error) => bad.add(heldout.bad_record(sample, &error)),
        }
    }
    need_any(pairs.len(), &bad, "no held-out image can be read")?;
    let mut found = counts(heldout, count);
    found.insert("items.pairs".into(), pairs.len() as f64);
    found.insert("items.unread_pairs".into(), bad.count as f64);
    unknown(&mut found, tokenizer, pairs.iter().map(|pair| pair.caption.as_str()))?;
    name(params, &bad);
    Ok((pairs, found))
}

/// The share of all questions answered word for word, each asked as it was in training; of the most frequent answer to each
/// question; and of blank images.
pub fn instruction(
    vlm: &Vlm,
    params: &Params,
    prepare: &Prepare,
    heldout: &Corpus,
    count: usize,
    independent: bool,
) -> Result<Figures> {
    let (mut talks, mut bad) = (Vec::new(), BadRecords::default());
    for sample in heldout.samples.iter().take(count) {
        match heldout.conversation(sample) {
            Ok(talk) => talks.push((sample, talk)),
            Err(error) => bad.add(heldout.bad_record(sample, &error)),
        }
    }
    let all: usize = heldout.samples.iter().take(count).map(|sample| sample.turns.len()).sum();
    let ask = |talks: &[Conversation]| answers(vlm, params, prepare, talks, independent);
    let (samples, shown): (Vec<_>, Vec<Conversation>) = talks.into_iter().unzip();
    let (mut asked, mut said) = (Vec::new(), Vec::new());
    for ((sample, talk), found) in samples.into_iter().zip(shown.iter()).zip(ask(&shown)?) {
        match found {
            Ok(found) => {
                asked.push(talk);
                said.push(found);
            }
            Err(error) => bad.add(heldout.bad_record(sample, &error)),
        }
    }
    need_any(asked.len(), &bad, "no held-out question can be asked")?;
    let expected = expected(&asked, &prepare.tokenizer)?;
    let mut found = exact("", &asked, &expected, &said);
    let blanks: Vec<Conversation> = asked.iter().map(|talk| blanked(talk, prepare)).collect();
    let blind: Vec<Vec<Answer>> = ask(&blanks)?.into_iter().collect::<Result<_>>()?;
    found.extend(exact("control.blank.", &asked, &expected, &blind));
    let answered = asked.iter().flat_map(|talk| &talk.turns).zip(expected.iter().flatten());
    let accepted = answered.map(|((question, _), answer)| (question.as_str(), vec![answer.text.as_str()]));
    found.insert("answers.majority".into(), guess::by_question(accepted));
    let questions: usize = asked.iter().map(|talk| talk.turns.len()).sum();
    let unsayable = expected.iter().flatten().filter(|answer| !answer.sayable).count();
    found.extend(counts(heldout, count));
    found.insert("items.answers".into(), questions as f64);
    found.insert("items.unasked".into(), (all - questions) as f64);
    found.insert("items.unsayable".into(), unsayable as f64);
    let texts = asked.iter().flat_map(|talk| {
        let turns = talk.turns.iter().flat_map(|(question, answer)| [question, answer]);
        talk.system.iter().chain(turns).map(String::as_str)
    });
    unknown(&mut found, &prepare.tokenizer, texts)?;
    name(params, &bad);
    Ok(found)
}

fn blanked(talk: &Conversation, prepare: &Prepare) -> Conversation {
    Conversation { images: vec![blank(&prepare.processor); talk.images.len()], ..talk.clone() }
}

fn expected(asked: &[&Conversation], tokenizer: &Tokenizer) -> Result<Vec<Vec<Expected>>> {
    let turns = |talk: &&Conversation| {
        let turns = talk.turns.iter();
        turns.map(|(_, answer)| Expected::new(tokenizer, answer)).collect()
    };
    asked.iter().map(turns).collect()
}

/// The share of questions answered word for word; those about one image err together.
fn exact(prefix: &str, asked: &[&Conversation], expected: &[Vec<Expected>], said: &[Vec<Answer>]) -> Figures {
    let rows = asked.iter().zip(expected.iter().zip(said)).flat_map(|(talk, (expected, said))| {
        let image = talk.places.first().copied().unwrap_or_default();
        let right = expected.iter().zip(said).map(|(expected, said)| said.right && expected.sayable);
        right.map(move |right| (image, f64::from(u8::from(right))))
    });
    figures(prefix, &[Measure::mean("answers.exact", rows)])
}

/// What of the held-out set is measured at all.
fn counts(heldout: &Corpus, count: usize) -> Figures {
    let all = heldout.samples.len();
    Figures::from([
        ("items.records".into(), all.min(count) as f64),
        ("items.records_beyond_limit".into(), all.saturating_sub(count) as f64),
        ("items.bad_records".into(), heldout.bad.count as f64),
        ("items.records_without_target".into(), heldout.lost.without_target.count as f64),
    ])
}

fn unknown<'t>(found: &mut Figures, tokenizer: &Tokenizer, texts: impl Iterator<Item = &'t str>) -> Result<()> {
    let words = UnknownWords::of(tokenizer, texts)?;
    found.insert("items.words".into(), words.tokens as f64);
    found.insert("items.unknown_words".into(), words.count() as f64);
    Ok(())
}

fn need_any(found: usize, bad: &BadRecords, what: &str) -> Result<()> {
    if found == 0 {
        bail!("{what}:\n{}", bad.list());
    }
    Ok(())
}

/// Names the first of what could not be asked; the figures have their number. A rehearsal names nothing.
fn name(params: &Params, bad: &BadRecords) {
    if bad.count > 0 && params.device().kind() != Kind::Trace {
        errln!("not measured:\n{}", bad.list());
    }
}

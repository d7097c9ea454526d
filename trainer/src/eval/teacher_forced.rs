//! Answers to many questions, all of a conversation's in one pass, laid out as in training.
//!
//! Independent questions about an image share it and do not see each other; those of a conversation see what came before,
//! with the answers that were expected. With greedy decoding an answer is the expected one exactly when, fed the expected
//! answer, the model's first choice is right at every token, the end of the answer included; what it says instead is known
//! up to its first wrong token.

use crate::data::{Conversation, Layout, Prepare};
use crate::interrupt;
use anyhow::{Context, Result, ensure};
use engine::{Graph, Params};
use model::{IGNORE, TextBatch, Tokenizer, Vlm};

/// Conversations answered at once.
const BATCH: usize = 32;

/// What the model says to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The expected answer, or its words up to the first wrong one.
    pub said: String,
    /// Whether every token is the expected one.
    pub right: bool,
}

/// An expected answer as it comes out of a model's vocabulary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The answer, in the case and with the spaces that the tokenizer keeps.
    pub text: String,
    /// Whether the vocabulary can say it. A model that cannot is never right: unknown words are not compared with each other.
    pub sayable: bool,
}

impl Expected {
    /// Of an answer as the data have it.
    pub fn new(tokenizer: &Tokenizer, answer: &str) -> Result<Expected> {
        let said = tokenizer.decode(&tokenizer.encode(answer)?)?.trim().to_string();
        let letters = |text: &str| -> String {
            let letters = text.chars().filter(|c| !c.is_whitespace());
            letters.flat_map(char::to_lowercase).collect()
        };
        Ok(match letters(&said) == letters(answer) {
            true => Expected { text: said, sayable: true },
            false => Expected { text: answer.to_string(), sayable: false },
        })
    }

    /// Whether a model said just that.
    pub fn is(&self, said: &str) -> bool {
        self.sayable && said.trim() == self.text
    }
}

/// What the model says to each question of each conversation. One that cannot be asked, because an image or a text is not
/// what the model takes, has its reason in place of answers and does not keep others from being asked.
///
/// # Errors
/// [`interrupt::Stopped`] when a signal asked to stop.
pub fn answers(
    vlm: &Vlm,
    params: &Params,
    prepare: &Prepare,
    asked: &[Conversation],
    independent: bool,
) -> Result<Vec<Result<Vec<Answer>>>> {
    // An answer that is cut is none.
    let whole = Prepare { max_tokens: None, ..prepare.clone() };
    let ask = |asked: &[Conversation]| forced(vlm, params, &whole, asked, independent);
    let mut all = Vec::with_capacity(asked.len());
    for batch in asked.chunks(BATCH) {
        interrupt::heed()?;
        match ask(batch) {
            Ok(found) => all.extend(found.into_iter().map(Ok)),
            Err(_) => {
                for one in batch.chunks(1) {
                    all.push(ask(one).map(|mut found| found.swap_remove(0)));
                }
            }
        }
    }
    Ok(all)
}

/// One forward pass over a batch of conversations.
fn forced(
    vlm: &Vlm,
    params: &Params,
    prepare: &Prepare,
    batch: &[Conversation],
    independent: bool,
) -> Result<Vec<Vec<Answer>>> {
    let layout = Layout { independent, packing: false };
    let text = prepare.conversations(batch, layout)?;
    let slots = if prepare.image.is_none() { vlm.config.image_tokens() } else { 0 };
    let longest = slots + text.positions.iter().max().map_or(0, |last| *last as usize + 1);
    ensure!(longest <= prepare.room, "{longest} tokens with its images, the model takes {}", prepare.room);
    let graph = Graph::inference(params);
    let pixels = prepare.tensor(params, &prepare.pixels(batch.iter().flat_map(|talk| &talk.images))?)?;
    let found = vlm.loss(&graph, &graph.input(pixels), &text)?.predictions.to_vec::<i32>()?;
    let row = |(row, talk): (usize, &Conversation)| {
        let spans = spans(&text, row);
        ensure!(
            spans.len() == talk.turns.len(),
            "the layout has {} answers where the conversation has {}",
            spans.len(),
            talk.turns.len()
        );
        let said = |span: &Vec<usize>| first_words(span.iter().map(|&i| (found[i], text.targets[i])), prepare);
        spans.iter().map(said).collect()
    };
    batch.iter().enumerate().map(row).collect()
}

/// The places of each answer's targets in a row: what is learned without a gap, within one turn.
fn spans(text: &TextBatch, row: usize) -> Vec<Vec<usize>> {
    let places = row * text.tokens..(row + 1) * text.tokens;
    let learned: Vec<usize> = places.filter(|&i| text.targets[i] != IGNORE).collect();
    let joined = |a: &usize, b: &usize| a + 1 == *b && text.segments[*a] == text.segments[*b];
    learned.chunk_by(joined).map(<[usize]>::to_vec).collect()
}

/// The predicted tokens up to the first that differs from its target, as text; that one as it stands in the vocabulary.
fn first_words(tokens: impl Iterator<Item = (i32, i32)>, prepare: &Prepare) -> Result<Answer> {
    let (mut ids, mut right) = (Vec::new(), true);
    for (found, target) in tokens {
        ids.push(u32::try_from(found).context("a predicted id")?);
        right = found == target;
        if !right {
            break;
        }
    }
    let said = match right {
        true => prepare.tokenizer.decode(&ids)?,
        false => prepare.tokenizer.decode_with_specials(&ids)?,
    };
    Ok(Answer { said, right })
}

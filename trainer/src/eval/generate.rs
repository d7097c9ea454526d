//! Greedy answers to questions about images, many at a time.

use super::tasks::{ImageAblation, Item, Setup};
use crate::data::blank;
use crate::interrupt;
use anyhow::{Context, Result, bail};
use model::{Answer, Finish, Generation, Generator, Prompt, Request, Tokenizer};
use std::collections::HashMap;
use std::ops::ControlFlow;

/// What a model says by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// The text, with the token for unknown words where the model says it.
    pub text: String,
    /// Whether it would have gone on.
    pub cut: bool,
}

impl Reply {
    pub fn whole(text: &str) -> Reply {
        Reply { text: text.to_string(), cut: false }
    }

    fn new(answer: &Answer, longest: usize, tokenizer: &Tokenizer) -> Result<Reply> {
        let ids = &answer.ids[..answer.ids.len().min(longest)];
        let unknown = tokenizer.specials().unk.is_some_and(|unk| ids.contains(&unk));
        let text = match unknown {
            true => tokenizer.decode_with_specials(ids)?,
            false => tokenizer.decode(ids)?,
        };
        Ok(Reply { text: text.trim().to_string(), cut: answer.finish == Finish::Length })
    }
}

/// What the model says to each prompt, at most `longest` tokens. A prompt that leaves no room for an answer, or is none for
/// this model, has its reason in place of one.
pub fn replies(
    generator: &Generator<'_>,
    tokenizer: &Tokenizer,
    prompts: Vec<Result<Prompt>>,
    longest: usize,
) -> Vec<Result<Reply>> {
    let request = |prompt: Prompt| {
        let room = generator.room(&prompt)?;
        if room == 0 {
            bail!("no room for an answer: with its image the question is as long as the model's longest text");
        }
        let settings = Generation {
            // One more: an answer that ends there is whole.
            max_new: longest.saturating_add(1).min(room),
            stop: tokenizer.ends().to_vec(),
            ..Generation::default()
        };
        Ok(Request { prompt, settings })
    };
    let mut replies: Vec<Result<Reply>> = Vec::with_capacity(prompts.len());
    let (mut requests, mut places) = (Vec::new(), Vec::new());
    for (place, prompt) in prompts.into_iter().enumerate() {
        replies.push(Ok(Reply::default()));
        match prompt.and_then(request) {
            Ok(request) => {
                requests.push(request);
                places.push(place);
            }
            Err(error) => replies[place] = Err(error),
        }
    }
    let run = |requests: &[Request]| -> Result<Vec<Reply>> {
        let answers = generator.run(requests, &mut |_| ControlFlow::Continue(()))?;
        answers.iter().map(|answer| Reply::new(answer, longest, tokenizer)).collect()
    };
    match run(&requests) {
        Ok(found) => places.iter().zip(found).for_each(|(&place, reply)| replies[place] = Ok(reply)),
        Err(_) => {
            for (place, request) in places.into_iter().zip(&requests) {
                replies[place] = run(std::slice::from_ref(request)).map(|mut found| found.swap_remove(0));
            }
        }
    }
    replies
}

impl Setup<'_> {
    /// What the model says to each question, at most `usual` tokens unless the command line says otherwise. What is asked
    /// twice is answered once: with a blank image, most of a task is.
    ///
    /// # Errors
    /// When the model cannot answer, an image is damaged, or a question too long.
    pub fn answers(&self, items: &[Item], ablation: ImageAblation, usual: usize) -> Result<Vec<Reply>> {
        let mut numbers = HashMap::new();
        let mut distinct = Vec::new();
        let places: Vec<usize> = items
            .iter()
            .map(|item| {
                let images: Vec<&str> =
                    item.images().map(|name| if ablation == ImageAblation::None { name } else { "" }).collect();
                let asked = (images, &item.system, &item.before, item.question.as_str());
                *numbers.entry(asked).or_insert_with(|| {
                    distinct.push(item);
                    distinct.len() - 1
                })
            })
            .collect();
        let mut said = Vec::with_capacity(distinct.len());
        for batch in distinct.chunks(self.batch_size) {
            interrupt::heed()?;
            said.extend(self.batch(batch, ablation, usual)?);
            (self.progress)(said.len(), distinct.len());
        }
        Ok(places.into_iter().map(|place| said[place].clone()).collect())
    }

    fn batch(&self, items: &[&Item], ablation: ImageAblation, usual: usize) -> Result<Vec<Reply>> {
        let mut generator = self.subject.generator().context("this model answers no questions")?;
        let images = self.look(&mut generator, items, ablation)?;
        let prompts = items.iter().zip(images).map(|(item, images)| self.subject.prompt(item, &images));
        let longest = self.max_tokens.unwrap_or(usual);
        let replies = replies(&generator, self.subject.tokenizer(), prompts.collect(), longest);
        replies.into_iter().collect()
    }

    /// Shows the generator the items' images, each once; returns which are which item's.
    fn look(&self, generator: &mut Generator<'_>, items: &[&Item], ablation: ImageAblation) -> Result<Vec<Vec<usize>>> {
        if ablation == ImageAblation::Removed {
            return Ok(vec![Vec::new(); items.len()]);
        }
        let names: Vec<&str> = items.iter().flat_map(|item| item.images()).collect();
        let (images, places) = self.images(&names, ablation)?;
        let (processor, params) = (self.subject.processor(), self.subject.params());
        generator.see(&processor.tensor(&images.concat(), params.device(), params.dtype())?)?;
        let mut places = places.into_iter();
        let own = |item: &&Item| places.by_ref().take(item.images().count()).collect();
        Ok(items.iter().map(own).collect())
    }

    /// The pixels of images of these names as an ablation shows them, each once, and which are which name's.
    pub(super) fn images(&self, names: &[&str], ablation: ImageAblation) -> Result<(Vec<Vec<u8>>, Vec<usize>)> {
        let processor = self.subject.processor();
        if ablation == ImageAblation::Blank {
            return Ok((vec![processor.bytes([&blank(processor)])?], vec![0; names.len()]));
        }
        let (distinct, places) = distinct(names);
        Ok((self.pictures.pixels(&distinct, processor)?, places))
    }
}

/// Every name once, and the place of each there.
pub(super) fn distinct<'n>(names: &[&'n str]) -> (Vec<&'n str>, Vec<usize>) {
    let (mut numbers, mut distinct) = (HashMap::new(), Vec::new());
    let place = |name: &&'n str| {
        *numbers.entry(*name).or_insert_with(|| {
            distinct.push(*name);
            distinct.len() - 1
        })
    };
    let places = names.iter().map(place).collect();
    (distinct, places)
}

//! Greedy answers to questions about images, many at a time.

use super::pictures::blank;
use super::tasks::{Item, Setup, View};
use anyhow::{Context, Result, bail};
use model::{Generation, Generator, Request};
use std::collections::HashMap;
use std::ops::ControlFlow;

impl Setup<'_> {
    /// What the model says to each question, at most `usual` tokens unless the command line says otherwise. What is asked
    /// twice is answered once: with a blank image, most of a task is.
    ///
    /// # Errors
    /// When the model cannot answer, an image is damaged, or a question too long.
    pub fn answers(&self, items: &[Item], view: View, usual: usize) -> Result<Vec<String>> {
        let mut numbers = HashMap::new();
        let mut distinct = Vec::new();
        let places: Vec<usize> = items
            .iter()
            .map(|item| {
                let image = if view == View::Seen { item.image.as_str() } else { "" };
                *numbers.entry((image, item.question.as_str())).or_insert_with(|| {
                    distinct.push(item);
                    distinct.len() - 1
                })
            })
            .collect();
        let mut said = Vec::with_capacity(distinct.len());
        for batch in distinct.chunks(self.batch_size) {
            said.extend(self.batch(batch, view, usual)?);
            (self.progress)(said.len(), distinct.len());
        }
        Ok(places.into_iter().map(|place| said[place].clone()).collect())
    }

    fn batch(&self, items: &[&Item], view: View, usual: usize) -> Result<Vec<String>> {
        let mut generator = self.subject.generator().context("this model answers no questions")?;
        let images = self.look(&mut generator, items, view)?;
        let max_new = self.max_tokens.unwrap_or(usual);
        let request = |(item, image): (&&Item, Option<usize>)| {
            let prompt = self.subject.prompt(&item.question, image)?;
            let room = generator.room(&prompt)?;
            if room == 0 {
                let start: String = item.question.chars().take(60).collect();
                bail!("no room for an answer to `{start}…`: with its image it is as long as the model's longest text");
            }
            let settings = Generation {
                max_new: max_new.min(room),
                stop: self.subject.tokenizer().ends().to_vec(),
                ..Generation::default()
            };
            Ok(Request { prompt, settings })
        };
        let requests: Vec<Request> = items.iter().zip(images).map(request).collect::<Result<_>>()?;
        let answers = generator.run(&requests, &mut |_| ControlFlow::Continue(()))?;
        Ok(answers
            .into_iter()
            .map(|answer| answer.text.trim().to_string())
            .collect())
    }

    /// Shows the generator the items' images, each once; returns which is which item's.
    fn look(&self, generator: &mut Generator<'_>, items: &[&Item], view: View) -> Result<Vec<Option<usize>>> {
        if view == View::Without {
            return Ok(vec![None; items.len()]);
        }
        let names: Vec<&str> = items.iter().map(|item| item.image.as_str()).collect();
        let (images, places) = self.images(&names, view)?;
        let (processor, params) = (self.subject.processor(), self.subject.params());
        generator.see(&processor.tensor(&images.concat(), params.device(), params.dtype())?)?;
        Ok(places.into_iter().map(Some).collect())
    }

    /// The pixels of images of these names as a view shows them, each once, and which are which name's.
    pub(super) fn images(&self, names: &[&str], view: View) -> Result<(Vec<Vec<u8>>, Vec<usize>)> {
        let processor = self.subject.processor();
        if view == View::Blank {
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

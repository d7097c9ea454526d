//! A few held-out images with questions, asked before, during and after training, and shown in the end.

use crate::data::Prepare;
use crate::data::scenes::{Scene, Split, evaluation};
use crate::report::attention_png::{png, side_by_side};
use crate::report::samples::{Shown, markdown};
use crate::run_folder::RunFolder;
use crate::session::{Dataset, Session};
use anyhow::Result;
use engine::{Graph, Params};
use image::RgbImage;
use model::Vlm;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::path::PathBuf;

/// Questions shown on the terminal each time.
const ON_TERMINAL: usize = 4;

/// One question about one image.
struct Item {
    image: RgbImage,
    question: String,
    expected: String,
    answer: String,
}

/// The questions and the latest answers.
pub struct Showcase {
    items: Vec<Item>,
    prepare: Prepare,
    max_tokens: usize,
    attention: usize,
}

impl Showcase {
    /// Questions about held-out images; about training images where nothing is held out.
    pub fn new(session: &Session) -> Result<Showcase> {
        let eval = &session.recipe.eval;
        let items = match &session.data {
            Dataset::Scenes(source) => {
                let scene = |i: u64| source.scenes.scene(Split::HeldOut, (1 << 30) + i);
                let item = |i: u64| scene_item(&scene(i), i, source.scenes.image_size);
                (0..eval.samples as u64).filter_map(item).collect()
            }
            Dataset::Corpus { train, heldout } => {
                let corpus = heldout.as_ref().unwrap_or(&train.corpus);
                let item = |sample: &crate::data::corpus::Sample| {
                    Ok(Item {
                        image: corpus.picture(sample)?,
                        question: sample.turns[0].question.clone(),
                        expected: sample.turns[0].answer.clone(),
                        answer: String::new(),
                    })
                };
                let single = corpus.samples.iter().filter(|sample| sample.images.len() == 1);
                single.take(eval.samples).map(item).collect::<Result<_>>()?
            }
        };
        let prepare = session.prepare.clone();
        Ok(Showcase {
            items,
            prepare,
            max_tokens: eval.max_tokens,
            attention: eval.attention,
        })
    }

    /// Has the model answer all questions and prints the first few.
    pub fn ask(&mut self, vlm: &Vlm, params: &Params, when: &str) -> Result<()> {
        let tokenizer = &self.prepare.tokenizer;
        let pixels = self
            .prepare
            .tensor(params, &self.prepare.pixels(self.items.iter().map(|i| &i.image))?)?;
        let ids = |(i, item): (usize, &Item)| Ok((i, self.prepare.prompt(&item.question)?));
        let prompts = self.items.iter().enumerate().map(ids).collect::<Result<Vec<_>>>()?;
        let room = vlm.config.decoder.max_position_embeddings - vlm.config.image_tokens();
        let longest = prompts.iter().map(|(_, ids)| ids.len()).max().unwrap_or(0);
        let max_new = self.max_tokens.min(room.saturating_sub(longest));
        let answers = vlm.answer(params, &pixels, &prompts, max_new, tokenizer.ends())?;
        for (item, ids) in self.items.iter_mut().zip(&answers) {
            item.answer = tokenizer.decode(ids)?;
        }
        println!("{when}:");
        for item in self.items.iter().take(ON_TERMINAL) {
            println!(
                "  {}  ->  {}   (expected: {})",
                item.question,
                shorten(&item.answer),
                shorten(&item.expected)
            );
        }
        Ok(())
    }

    /// Writes the images, where the model looked, and `samples.md`.
    pub fn write(&self, session: &Session, folder: &RunFolder) -> Result<()> {
        let mut shown = Vec::with_capacity(self.items.len());
        for (i, item) in self.items.iter().enumerate() {
            let image = format!("samples/{i:02}.png");
            folder.write(&image, &png(&item.image)?)?;
            let attention = match i < self.attention {
                true => self.attention(session, item)?,
                false => None,
            };
            let attention = match attention {
                Some(picture) => {
                    let name = format!("attention/{i:02}.png");
                    folder.write(&name, &png(&picture)?)?;
                    Some(name)
                }
                None => None,
            };
            let (question, answer) = (item.question.clone(), item.answer.clone());
            shown.push(Shown {
                image,
                attention,
                question,
                expected: Some(item.expected.clone()),
                answer,
            });
        }
        folder.write("samples.md", markdown(&session.recipe.run.name, &shown).as_bytes())
    }

    /// An image on disk and its question, to try next.
    pub fn example(&self, folder: &RunFolder) -> Option<(PathBuf, &str)> {
        self.items
            .first()
            .map(|item| (folder.file("samples/00.png"), item.question.as_str()))
    }

    /// The image beside the attention of the question's last token; none where the decoder sees no patches.
    fn attention(&self, session: &Session, item: &Item) -> Result<Option<RgbImage>> {
        let graph = Graph::inference(&session.params);
        let pixels = self
            .prepare
            .tensor(&session.params, &self.prepare.pixels([&item.image])?)?;
        let ids = self.prepare.prompt(&item.question)?;
        let maps = session.vlm.attention_maps(&graph, &graph.input(pixels), &ids)?;
        let Some(grid) = maps.grid else { return Ok(None) };
        Ok(Some(side_by_side(&item.image, &maps.mean(), grid, grid)?))
    }
}

/// One of a scene's evaluation questions, another kind for each index.
fn scene_item(scene: &Scene, index: u64, size: u32) -> Option<Item> {
    let turns = evaluation(scene, &mut ChaCha8Rng::seed_from_u64(index));
    let place = (index as usize * 5) % turns.len().max(1);
    let turn = turns.into_iter().nth(place)?;
    Some(Item {
        image: scene.render(size),
        question: turn.question,
        expected: turn.answer,
        answer: String::new(),
    })
}

fn shorten(text: &str) -> String {
    const MOST: usize = 80;
    match text.chars().count() > MOST {
        true => text.chars().take(MOST).chain(['…']).collect(),
        false => text.to_string(),
    }
}

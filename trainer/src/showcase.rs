//! A few held-out images with questions, asked before, during and after training, and shown in the end.

use crate::data::Prepare;
use crate::data::scenes::{QuestionKind, Scene, Split, evaluation, is_true};
use crate::report::attention_png::{png, side_by_side};
use crate::report::samples::{Said, Shown, markdown};
use crate::run_folder::{RunFolder, write_whole};
use crate::session::{Dataset, Session};
use anyhow::Result;
use engine::{Graph, Params};
use image::RgbImage;
use model::{Tokenizer, Vlm};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::path::PathBuf;

/// Questions shown on the terminal each time.
const ON_TERMINAL: usize = 4;
/// The file of answers in a run's folder.
pub const SAMPLES: &str = "samples.json";
/// What is asked in the end, and answered anew by a run that goes on.
const AFTER: &str = "after training";

/// One question about one image.
struct Item {
    image: RgbImage,
    /// What the image shows, where the question is to describe it: every true description is right.
    describes: Option<Scene>,
    question: String,
    expected: String,
}

/// The questions and the answers so far.
pub struct Showcase {
    items: Vec<Item>,
    shown: Vec<Shown>,
    file: PathBuf,
    prepare: Prepare,
    max_tokens: usize,
    attention: usize,
}

impl Showcase {
    /// Questions about held-out images; about training images where nothing is held out. The images are written into the
    /// run's folder; answers of earlier processes that are there are kept.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn new(session: &Session, folder: &RunFolder) -> Result<Showcase> {
        let items = items(session)?;
        let file = folder.file(SAMPLES);
        // What an earlier process left is for show alone: where it cannot be read, those answers are unknown.
        let earlier = std::fs::read(&file)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok());
        let earlier: Vec<Shown> = earlier.unwrap_or_default();
        let mut shown = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            let image = format!("samples/{i:02}.png");
            folder.write(&image, &png(&item.image)?)?;
            let same = earlier.get(i).filter(|other| other.question == item.question);
            let mut said = same.map_or(Vec::new(), |other| other.said.clone());
            said.retain(|said| said.when != AFTER);
            shown.push(Shown {
                image,
                attention: None,
                question: item.question.clone(),
                expected: Some(item.expected.clone()),
                said,
            });
        }
        let eval = &session.recipe.eval;
        let prepare = session.prepare.clone();
        Ok(Showcase {
            items,
            shown,
            file,
            prepare,
            max_tokens: eval.max_tokens,
            attention: eval.attention,
        })
    }

    /// Has the model answer all questions, keeps the answers and prints the first few.
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
        for ((item, shown), ids) in self.items.iter().zip(&mut self.shown).zip(&answers) {
            let answer = tokenizer.decode(ids)?;
            shown.add(Said {
                when: when.into(),
                right: item.is_answered(&answer, tokenizer)?,
                answer,
            });
        }
        say!("{when}:");
        for (item, shown) in self.items.iter().zip(&self.shown).take(ON_TERMINAL) {
            let answer = shown.said.last().map_or("", |said| &said.answer);
            say!(
                "  {}  ->  {}   (expected: {})",
                item.question,
                shorten(answer),
                shorten(&item.expected)
            );
        }
        write_whole(&self.file, &serde_json::to_vec_pretty(&self.shown)?)
    }

    /// Has the model answer in the end; writes where it looked, and `samples.md`.
    pub fn conclude(&mut self, session: &Session, folder: &RunFolder) -> Result<()> {
        for (i, (item, shown)) in self.items.iter().zip(&mut self.shown).enumerate().take(self.attention) {
            if let Some(picture) = attention(session, item)? {
                let name = format!("attention/{i:02}.png");
                folder.write(&name, &png(&picture)?)?;
                shown.attention = Some(name);
            }
        }
        self.ask(&session.vlm, &session.params, AFTER)?;
        folder.write("samples.md", markdown(&session.recipe.run.name, &self.shown).as_bytes())
    }

    /// An image on disk and its question, to try next.
    pub fn example(&self, folder: &RunFolder) -> Option<(PathBuf, &str)> {
        self.items
            .first()
            .map(|item| (folder.file("samples/00.png"), item.question.as_str()))
    }
}

impl Item {
    /// Case and spacing that the tokenizer drops do not count.
    fn is_answered(&self, answer: &str, tokenizer: &Tokenizer) -> Result<bool> {
        Ok(match &self.describes {
            Some(scene) => is_true(answer, scene),
            None => answer == tokenizer.decode(&tokenizer.encode(&self.expected)?)?,
        })
    }
}

/// The image beside the attention of the question's last token; none where the decoder sees no patches.
fn attention(session: &Session, item: &Item) -> Result<Option<RgbImage>> {
    let (graph, prepare) = (Graph::inference(&session.params), &session.prepare);
    let pixels = prepare.tensor(&session.params, &prepare.pixels([&item.image])?)?;
    let ids = prepare.prompt(&item.question)?;
    let maps = session.vlm.attention_maps(&graph, &graph.input(pixels), &ids)?;
    let Some(grid) = maps.grid else { return Ok(None) };
    Ok(Some(side_by_side(&item.image, &maps.mean(), grid, grid)?))
}

fn items(session: &Session) -> Result<Vec<Item>> {
    let count = session.recipe.eval.samples;
    match &session.data {
        Dataset::Scenes(source) => {
            let scene = |i: u64| source.scenes.scene(Split::HeldOut, (1 << 30) + i);
            let item = |i: u64| scene_item(scene(i), i, source.scenes.image_size);
            Ok((0..count as u64).filter_map(item).collect())
        }
        Dataset::Corpus { train, heldout } => {
            let corpus = heldout.as_ref().unwrap_or(&train.corpus);
            let item = |sample: &crate::data::corpus::Sample| {
                Ok(Item {
                    image: corpus.picture(sample)?,
                    describes: None,
                    question: sample.turns[0].question.clone(),
                    expected: sample.turns[0].answer.clone(),
                })
            };
            let single = corpus.samples.iter().filter(|sample| sample.images.len() == 1);
            single.take(count).map(item).collect()
        }
    }
}

/// One of a scene's evaluation questions, another kind for each index.
fn scene_item(scene: Scene, index: u64, size: u32) -> Option<Item> {
    let turns = evaluation(&scene, &mut ChaCha8Rng::seed_from_u64(index));
    let place = (index as usize * 5) % turns.len().max(1);
    let turn = turns.into_iter().nth(place)?;
    let describes = matches!(turn.kind, QuestionKind::Describe | QuestionKind::DescribeRelation);
    Some(Item {
        image: scene.render(size),
        describes: describes.then_some(scene),
        question: turn.question,
        expected: turn.answer,
    })
}

fn shorten(text: &str) -> String {
    const MOST: usize = 80;
    match text.chars().count() > MOST {
        true => text.chars().take(MOST).chain(['…']).collect(),
        false => text.to_string(),
    }
}

//! A few held-out images with questions, asked before, during and after training, and shown in the end.

use crate::data::corpus::Sample;
use crate::data::scenes::{QuestionKind, Scene, Split, evaluation, is_true};
use crate::data::{Conversation, Prepare};
use crate::eval::generate::{Reply, replies};
use crate::eval::teacher_forced::Expected;
use crate::report::attention_png::{in_a_row, png, side_by_side};
use crate::report::samples::{Shown, Utterance, markdown};
use crate::run_folder::{MAX_FILE, RunFolder, write_whole};
use crate::session::{Dataset, Session};
use anyhow::Result;
use engine::{Graph, Params};
use image::RgbImage;
use model::{Generator, Prompt, Vlm, read_file};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::path::PathBuf;

/// Questions shown on the terminal each time.
const ON_TERMINAL: usize = 4;
/// The file of answers in a run's folder.
pub const SAMPLES: &str = "samples.json";
/// What is asked in the end, and answered anew by a run that goes on.
const AFTER: &str = "after training";

/// One question of a conversation.
struct Item {
    /// The conversation, among those shown.
    talk: usize,
    /// Its number there.
    turn: usize,
    /// What the image shows, where the question is to describe it: every true description is right.
    describes: Option<Scene>,
    expected: Expected,
}

/// The questions and the answers so far.
pub struct SamplePredictions {
    talks: Vec<Conversation>,
    items: Vec<Item>,
    shown: Vec<Shown>,
    file: PathBuf,
    prepare: Prepare,
    /// Whether questions are asked without what came before.
    independent: bool,
    max_tokens: usize,
    attention: usize,
}

impl SamplePredictions {
    /// All questions of some held-out records; of training records where nothing is held out. The images are written into
    /// the run's folder; answers of earlier processes that are there are kept.
    pub fn new(session: &Session, folder: &RunFolder) -> Result<SamplePredictions> {
        let eval = &session.recipe.eval;
        let (talks, scenes) = talks(session);
        let mut predictions = SamplePredictions {
            items: Vec::new(),
            shown: Vec::new(),
            file: folder.file(SAMPLES),
            prepare: session.prepare.clone(),
            independent: session.recipe.independent_turns(),
            max_tokens: eval.max_tokens,
            attention: eval.attention,
            talks,
        };
        // What an earlier process left is for show alone: where it cannot be read, those answers are unknown.
        let earlier = read_file(&predictions.file, MAX_FILE).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let earlier: Vec<Shown> = earlier.unwrap_or_default();
        for (talk, scene) in scenes.into_iter().enumerate() {
            let image = format!("samples/{talk:02}.png");
            folder.write(&image, &png(&in_a_row(&predictions.talks[talk].images))?)?;
            for turn in 0..predictions.talks[talk].turns.len() {
                let expected = &predictions.talks[talk].turns[turn].1;
                let item = Item {
                    talk,
                    turn,
                    describes: scene.clone(),
                    expected: Expected::new(&predictions.prepare.tokenizer, expected)?,
                };
                let shown = predictions.shown(&item, &image, earlier.get(predictions.items.len()));
                predictions.shown.push(shown);
                predictions.items.push(item);
            }
        }
        Ok(predictions)
    }

    /// An item as it is shown, with the answers of an earlier process to the same question.
    fn shown(&self, item: &Item, image: &str, earlier: Option<&Shown>) -> Shown {
        let talk = &self.talks[item.talk];
        let first = if self.independent { item.turn } else { 0 };
        let told = talk.system.iter().map(|text| format!("system: {text}"));
        let turns = talk.turns[first..item.turn].iter();
        let before = told.chain(turns.map(|(question, answer)| format!("{question} → {answer}")));
        let (question, expected) = talk.turns[item.turn].clone();
        let mut said =
            earlier.filter(|other| other.question == question).map_or(Vec::new(), |other| other.said.clone());
        said.retain(|said| said.when != AFTER);
        Shown {
            image: image.into(),
            attention: None,
            before: before.collect(),
            question,
            expected: Some(expected),
            said,
        }
    }

    /// Has the model answer all questions, keeps the answers and prints the first few.
    pub fn ask(&mut self, vlm: &Vlm, params: &Params, when: &str) -> Result<()> {
        let tokenizer = &self.prepare.tokenizer;
        let mut generator = Generator::of_vlm(vlm, params).with_tokenizer(tokenizer);
        let images: Vec<&RgbImage> = self.talks.iter().flat_map(|talk| &talk.images).collect();
        if !images.is_empty() {
            generator.see(&self.prepare.tensor(params, &self.prepare.pixels(images)?)?)?;
        }
        let prompts = self.items.iter().map(|item| self.prompt(item)).collect();
        let replies = replies(&generator, tokenizer, prompts, self.max_tokens);
        for ((item, shown), reply) in self.items.iter().zip(&mut self.shown).zip(replies) {
            let (answer, right) = match reply {
                Ok(reply) => (reply.text.clone(), item.is_answered(&reply)),
                Err(error) => (format!("(could not be asked: {error:#})"), false),
            };
            shown.add(Utterance { when: when.into(), right, answer });
        }
        outln!("{when}:");
        for shown in self.shown.iter().take(ON_TERMINAL) {
            let answer = shown.said.last().map_or("", |said| &said.answer);
            outln!(
                "  {}  ->  {}   (expected: {})",
                shown.question,
                shorten(answer),
                shorten(shown.expected.as_deref().unwrap_or_default())
            );
        }
        write_whole(&self.file, &serde_json::to_vec_pretty(&self.shown)?)
    }

    /// A question as training laid it out, about the images it shows.
    fn prompt(&self, item: &Item) -> Result<Prompt> {
        let (ids, images) = self.prepare.prompt(&self.talks[item.talk], item.turn, self.independent)?;
        let first: usize = self.talks[..item.talk].iter().map(|talk| talk.images.len()).sum();
        Ok(Prompt { ids, images: (first..first + images).collect() })
    }

    /// Has the model answer in the end; writes where it looked, and `samples.md`.
    pub fn conclude(&mut self, session: &Session, folder: &RunFolder) -> Result<()> {
        for i in 0..self.attention.min(self.items.len()) {
            if let Some(picture) = self.attention(session, &self.items[i])? {
                let name = format!("attention/{i:02}.png");
                folder.write(&name, &png(&picture)?)?;
                self.shown[i].attention = Some(name);
            }
        }
        self.ask(&session.vlm, &session.params, AFTER)?;
        folder.write("samples.md", markdown(&session.recipe.run.name, &self.shown).as_bytes())
    }

    /// The image beside the attention of the question's last token; none where the decoder sees no patches, or not one image.
    fn attention(&self, session: &Session, item: &Item) -> Result<Option<RgbImage>> {
        let (Ok(prompt), [image]) = (self.prompt(item), &self.talks[item.talk].images[..]) else {
            return Ok(None);
        };
        if prompt.images.len() != 1 {
            return Ok(None);
        }
        let graph = Graph::inference(&session.params);
        let pixels = self.prepare.tensor(&session.params, &self.prepare.pixels([image])?)?;
        let maps = session.vlm.attention_maps(&graph, &graph.input(pixels), &prompt.ids)?;
        let Some(grid) = maps.grid else { return Ok(None) };
        Ok(Some(side_by_side(image, &maps.mean(), grid, grid)?))
    }

    /// An image on disk and its question, to try next.
    pub fn example(&self, folder: &RunFolder) -> Option<(PathBuf, &str)> {
        let alone = |item: &&Item| self.talks[item.talk].images.len() == 1 && item.turn == 0;
        let item = self.items.iter().find(alone)?;
        let question = self.talks[item.talk].turns[0].0.as_str();
        Some((folder.file(&format!("samples/{:02}.png", item.talk)), question))
    }
}

impl Item {
    /// Case and spacing that the tokenizer drops do not count; an answer that goes on does.
    fn is_answered(&self, reply: &Reply) -> bool {
        match &self.describes {
            Some(scene) => is_true(&reply.text, scene),
            None => !reply.cut && self.expected.is(&reply.text),
        }
    }
}

/// The conversations shown; and of each that asks for a scene's description, the scene.
fn talks(session: &Session) -> (Vec<Conversation>, Vec<Option<Scene>>) {
    let count = session.recipe.eval.samples;
    match &session.data {
        Dataset::Scenes(source) => {
            let scene = |i: u64| source.scenes.scene(Split::HeldOut, (1 << 30) + i);
            let one = |i: u64| scene_talk(scene(i), i, source.scenes.image_size);
            (0..count as u64).filter_map(one).unzip()
        }
        Dataset::Corpus { train, heldout } => {
            let corpus = heldout.as_deref().unwrap_or(&train.corpus);
            let read = |sample: &Sample| match corpus.conversation(sample) {
                Ok(talk) => Some((talk, None)),
                Err(error) => {
                    errln!("not shown: {}", corpus.bad_record(sample, &error));
                    None
                }
            };
            corpus.samples.iter().filter_map(read).take(count).unzip()
        }
    }
}

/// One of a scene's evaluation questions, another kind for each index.
fn scene_talk(scene: Scene, index: u64, size: u32) -> Option<(Conversation, Option<Scene>)> {
    let turns = evaluation(&scene, &mut ChaCha8Rng::seed_from_u64(index));
    let place = (index as usize * 5) % turns.len().max(1);
    let turn = turns.into_iter().nth(place)?;
    let describes = matches!(turn.kind, QuestionKind::Describe | QuestionKind::DescribeRelation);
    let talk = Conversation::about(vec![scene.render(size)], vec![(turn.question, turn.answer)]);
    Some((talk, describes.then_some(scene)))
}

fn shorten(text: &str) -> String {
    const MOST: usize = 80;
    match text.chars().count() > MOST {
        true => text.chars().take(MOST).chain(['…']).collect(),
        false => text.to_string(),
    }
}

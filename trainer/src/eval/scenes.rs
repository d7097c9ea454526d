//! The held-out table on the built-in scenes: every ability beside chance and a blank image.

use super::Figures;
use super::contrastive::{comparer, retrieval};
use super::metrics::chair::{self, Mentions};
use super::metrics::{Measure, yes_no};
use super::teacher_forced::{Answer, answers};
use crate::data::scenes::{Negatives, QuestionKind, Relation, Scene, Scenes, Split, Turn};
use crate::data::scenes::{balanced_questions, evaluation, hallucinated, is_true, mentions};
use crate::data::{Conversation, Pair, Prepare, blank};
use anyhow::Result;
use engine::Params;
use image::RgbImage;
use model::Vlm;
use rand::Rng;
use std::collections::BTreeMap;

/// Longest caption in tokens: four objects take fifteen.
const CAPTION: usize = 24;

/// Images captioned at once.
const BATCH: usize = 64;

/// A trained model and the scenes it is measured on.
pub struct SceneEval<'a> {
    /// The model.
    pub vlm: &'a Vlm,
    /// Its weights.
    pub params: &'a Params,
    /// Tokenizer and image processor.
    pub prepare: &'a Prepare,
    pub scenes: Scenes,
    /// Scenes per split.
    pub count: usize,
}

impl SceneEval<'_> {
    /// Matching and retrieval by the Q-Former: what phase 1 teaches. Empty without a Q-Former.
    pub fn alignment(&self) -> Result<Figures> {
        let Some(comparer) = comparer(self.vlm, self.params, self.prepare) else {
            return Ok(Figures::new());
        };
        let scenes = self.drawn(Split::HeldOut);
        let pairs: Vec<Pair> = (0..self.count as u64).map(|i| self.scenes.held_out(i)).collect();
        let mut figures = retrieval(&comparer, &pairs)?;
        let mut asked = Vec::new();
        for (i, (scene, pair)) in scenes.iter().zip(&pairs).enumerate() {
            let mut rng = self.scenes.text_rng(Split::HeldOut, i as u64, 8);
            let random = random_negative(&scenes, i, &mut rng);
            let hard = scene.altered_caption(&mut rng).to_string();
            let pixels = self.prepare.pixels([&pair.image])?;
            asked.push((pixels, [pair.caption.clone(), random, hard]));
        }
        let asked =
            asked.iter().flat_map(|(pixels, texts)| texts.iter().map(|text| (pixels.as_slice(), text.as_str())));
        let asked: Vec<(&[u8], &str)> = asked.collect();
        let found = comparer.matches(&asked)?;
        let said = |yes: bool| if yes { "yes" } else { "no" };
        for (name, place) in [("matching.random.", 1), ("matching.hard.", 2)] {
            let scenes = found.chunks(3).enumerate();
            let both = |(i, found): (usize, &[bool])| [(i, true, said(found[0])), (i, false, said(found[place]))];
            let rows: Vec<_> = scenes.flat_map(both).collect();
            figures.extend(super::figures(name, &yes_no::measures("", &rows)));
        }
        Ok(figures)
    }

    /// Every kind of question, captions, unseen pairs and the blank image: what phase 2 teaches.
    pub fn instruction(&self) -> Result<Figures> {
        let scenes = self.drawn(Split::HeldOut);
        let questions: Vec<Vec<Turn>> = scenes.iter().enumerate().map(|(i, s)| self.questions(s, i)).collect();
        let images: Vec<RgbImage> = scenes.iter().map(|s| s.render(self.scenes.image_size)).collect();
        let mut figures = self.short_answers("", &images, &questions)?;
        let blank = vec![blank(&self.prepare.processor); images.len()];
        figures.extend(self.short_answers("control.blank.", &blank, &questions)?);
        figures.extend(self.captions("", &scenes, &images)?);
        figures.extend(self.captions("control.blank.", &scenes, &blank[..1])?);
        figures.extend(self.unseen()?);
        Ok(figures)
    }

    fn drawn(&self, split: Split) -> Vec<Scene> {
        (0..self.count as u64).map(|i| self.scenes.scene(split, i)).collect()
    }

    fn questions(&self, scene: &Scene, index: usize) -> Vec<Turn> {
        let mut rng = self.scenes.text_rng(Split::HeldOut, index as u64, 9);
        let short = |turn: &Turn| !matches!(turn.kind, QuestionKind::Describe | QuestionKind::DescribeRelation);
        evaluation(scene, &mut rng).into_iter().filter(short).collect()
    }

    /// Scenes with a pair that training never showed: is such a pair there?
    fn unseen(&self) -> Result<Figures> {
        let scenes = self.drawn(Split::Compositional);
        let questions = |(i, scene): (usize, &Scene)| {
            let mut rng = self.scenes.text_rng(Split::Compositional, i as u64, 9);
            balanced_questions(scene, QuestionKind::Existence(Negatives::Adversarial), &mut rng)
        };
        let questions: Vec<Vec<Turn>> = scenes.iter().enumerate().map(questions).collect();
        let images: Vec<RgbImage> = scenes.iter().map(|s| s.render(self.scenes.image_size)).collect();
        let figures = self.short_answers("compositional.", &images, &questions)?;
        let mut figures: Figures = figures.into_iter().filter(|(key, _)| !key.contains("adversarial")).collect();
        figures.extend(self.captions("compositional.", &scenes, &images)?);
        Ok(figures)
    }

    fn short_answers(&self, prefix: &str, images: &[RgbImage], questions: &[Vec<Turn>]) -> Result<Figures> {
        let turns = |turns: &Vec<Turn>| turns.iter().map(|t| (t.question.clone(), t.answer.clone())).collect();
        let asked: Vec<Conversation> =
            images.iter().zip(questions).map(|(image, t)| Conversation::about(vec![image.clone()], turns(t))).collect();
        let said = answers(self.vlm, self.params, self.prepare, &asked, true)?;
        let said: Vec<Vec<Answer>> = said.into_iter().collect::<Result<_>>()?;
        let mut tally = Tally::default();
        for (scene, (turns, said)) in questions.iter().zip(&said).enumerate() {
            for (turn, said) in turns.iter().zip(said) {
                tally.add(scene, turn, &said.said);
            }
        }
        Ok(tally.figures(prefix))
    }

    /// Captions the model writes itself: the share that is wholly true, that names every object, and hallucination
    /// after CHAIR (Rohrbach et al. 2018): mentioned things that are not there, per mention and per caption. A single image
    /// serves all scenes.
    fn captions(&self, prefix: &str, scenes: &[Scene], images: &[RgbImage]) -> Result<Figures> {
        let tokenizer = &self.prepare.tokenizer;
        let talk = Conversation::about(Vec::new(), vec![("describe the image .".into(), String::new())]);
        let (question, _) = self.prepare.prompt(&talk, 0, true)?;
        let mut ids = Vec::with_capacity(images.len());
        for batch in images.chunks(BATCH) {
            let prompts: Vec<_> = (0..batch.len()).map(|i| (i, question.clone())).collect();
            let pixels = self.prepare.tensor(self.params, &self.prepare.pixels(batch)?)?;
            ids.extend(self.vlm.answer(self.params, &pixels, &prompts, CAPTION, tokenizer.ends())?);
        }
        let (mut right, mut complete, mut named) = (Vec::new(), Vec::new(), Vec::new());
        for (i, (scene, ids)) in scenes.iter().zip(ids.iter().cycle()).enumerate() {
            let text = tokenizer.decode(ids)?;
            let (all, truth) = (mentions(&text), is_true(&text, scene));
            right.push((i, score(truth)));
            complete.push((i, score(truth && all.len() == scene.objects.len())));
            named.push(Mentions {
                cluster: i,
                named: all.len(),
                absent: hallucinated(&text, scene).len(),
                ..Mentions::default()
            });
        }
        let mut measures = vec![Measure::mean("caption.truth", right), Measure::mean("caption.complete", complete)];
        for (mut measure, name) in chair::measures(&named).into_iter().zip(["chair.mention", "chair.caption"]) {
            measure.name = name.into();
            measures.push(measure);
        }
        Ok(super::figures(prefix, &measures))
    }
}

fn score(right: bool) -> f64 {
    f64::from(u8::from(right))
}

/// A caption of another scene that is false of scene `index`; should twenty of them not be, its own altered.
fn random_negative(scenes: &[Scene], index: usize, rng: &mut impl Rng) -> String {
    let mut captions = (1..=20).map(|step| scenes[(index + step) % scenes.len()].any_caption(rng));
    let wrong = captions.find(|caption| caption.holds(&scenes[index]) == Some(false));
    wrong.unwrap_or_else(|| scenes[index].altered_caption(rng)).to_string()
}

/// Answers by kind, each with its scene.
#[derive(Default)]
struct Tally<'t> {
    yes_no: BTreeMap<String, Vec<(usize, bool, &'t str)>>,
    exact: BTreeMap<&'static str, Vec<(usize, f64)>>,
}

impl<'t> Tally<'t> {
    fn add(&mut self, scene: usize, turn: &Turn, said: &'t str) {
        let names = match turn.kind {
            QuestionKind::Existence(negatives) => {
                vec!["existence".into(), format!("existence.{}", negative(negatives))]
            }
            QuestionKind::Spatial(relation) => vec!["spatial".into(), format!("spatial.{}", relation_key(relation))],
            other => return self.add_exact(scene, other, turn.answer == said),
        };
        for name in names {
            let rows = self.yes_no.entry(name).or_default();
            rows.push((scene, turn.answer == "yes", said));
        }
    }

    fn add_exact(&mut self, scene: usize, kind: QuestionKind, right: bool) {
        let name = match kind {
            QuestionKind::Count => "count",
            QuestionKind::Colour => "colour",
            QuestionKind::Shape => "shape",
            QuestionKind::Choice(_) => "choice",
            QuestionKind::Where => "where",
            QuestionKind::Which => "which",
            _ => return,
        };
        self.exact.entry(name).or_default().push((scene, score(right)));
    }

    fn figures(self, prefix: &str) -> Figures {
        let yes_no = self.yes_no.iter().flat_map(|(name, rows)| yes_no::measures(&format!("{name}."), rows));
        let exact = self.exact.into_iter();
        let exact = exact.map(|(name, scores)| Measure::mean(format!("{name}.accuracy"), scores));
        super::figures(prefix, &yes_no.chain(exact).collect::<Vec<_>>())
    }
}

/// A kind of negative as it stands in a figure's name.
pub fn negative(negatives: Negatives) -> &'static str {
    match negatives {
        Negatives::Random => "random",
        Negatives::Popular => "popular",
        Negatives::Adversarial => "adversarial",
    }
}

/// A relation as it stands in a figure's name: `left_of`.
pub fn relation_key(relation: Relation) -> String {
    relation.words().replace(' ', "_")
}

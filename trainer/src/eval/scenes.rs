//! The held-out table on the built-in scenes: every ability beside chance and a blank image.

use super::answers::{Asked, answers};
use super::comparing::{comparer, retrieval};
use super::metrics::chair::Chair;
use super::pictures::blank;
use super::{Figures, YesNo};
use crate::data::scenes::{Negatives, QuestionKind, Relation, Scene, Scenes, Split, Turn};
use crate::data::scenes::{balanced_questions, evaluation, hallucinated, is_true, mentions};
use crate::data::{Pair, Prepare};
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
    /// The scenes.
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
        let pair = |(i, scene): (usize, &Scene)| {
            let mut rng = self.scenes.text_rng(Split::HeldOut, i as u64, 7);
            Pair {
                image: scene.render(self.scenes.image_size),
                caption: scene.any_caption(&mut rng).to_string(),
                scene: Some(scene.clone()),
            }
        };
        let pairs: Vec<Pair> = scenes.iter().enumerate().map(pair).collect();
        let mut figures = retrieval(&comparer, &pairs)?;
        let (mut random, mut hard) = (YesNo::default(), YesNo::default());
        let (mut asked, mut kinds) = (Vec::new(), Vec::new());
        for (i, (scene, pair)) in scenes.iter().zip(&pairs).enumerate() {
            let mut rng = self.scenes.text_rng(Split::HeldOut, i as u64, 8);
            asked.push((&pair.image, pair.caption.clone()));
            asked.push((&pair.image, random_negative(&scenes, i, &mut rng)));
            asked.push((&pair.image, scene.altered_caption(&mut rng).to_string()));
            kinds.extend([0, 1, 2]);
        }
        let asked: Vec<(&RgbImage, &str)> = asked.iter().map(|(image, text)| (*image, text.as_str())).collect();
        let found = comparer.matches(&asked)?;
        for (kind, yes) in kinds.into_iter().zip(found) {
            let answer = if yes { "yes" } else { "no" };
            match kind {
                0 => {
                    random.add(true, answer);
                    hard.add(true, answer);
                }
                1 => random.add(false, answer),
                _ => hard.add(false, answer),
            }
        }
        random.figures("matching.random", &mut figures);
        hard.figures("matching.hard", &mut figures);
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
        let mut figures: Figures = figures
            .into_iter()
            .filter(|(key, _)| !key.contains("adversarial"))
            .collect();
        figures.extend(self.captions("compositional.", &scenes, &images)?);
        Ok(figures)
    }

    fn short_answers(&self, prefix: &str, images: &[RgbImage], questions: &[Vec<Turn>]) -> Result<Figures> {
        let turns = |turns: &Vec<Turn>| turns.iter().map(|t| (t.question.clone(), t.answer.clone())).collect();
        let asked: Vec<Asked> = images
            .iter()
            .zip(questions)
            .map(|(image, t)| Asked {
                image: image.clone(),
                turns: turns(t),
            })
            .collect();
        let said = answers(self.vlm, self.params, self.prepare, &asked)?;
        let mut tally = Tally::default();
        for (turns, said) in questions.iter().zip(&said) {
            for (turn, said) in turns.iter().zip(said) {
                tally.add(turn, said);
            }
        }
        Ok(tally.figures(prefix))
    }

    /// Captions the model writes itself: the share that is wholly true, that names every object, and hallucination
    /// after CHAIR (Rohrbach et al. 2018): mentioned things that are not there, per mention and per caption.
    fn captions(&self, prefix: &str, scenes: &[Scene], images: &[RgbImage]) -> Result<Figures> {
        let tokenizer = &self.prepare.tokenizer;
        let question = self.prepare.prompt("describe the image .")?;
        let mut ids = Vec::with_capacity(images.len());
        for batch in images.chunks(BATCH) {
            let prompts: Vec<_> = (0..batch.len()).map(|i| (i, question.clone())).collect();
            let pixels = self.prepare.tensor(self.params, &self.prepare.pixels(batch)?)?;
            ids.extend(
                self.vlm
                    .answer(self.params, &pixels, &prompts, CAPTION, tokenizer.ends())?,
            );
        }
        let (mut right, mut complete, mut chair) = (0, 0, Chair::default());
        for (scene, ids) in scenes.iter().zip(&ids) {
            let text = tokenizer.decode(ids)?;
            let (all, wrong) = (mentions(&text), hallucinated(&text, scene));
            let truth = is_true(&text, scene);
            right += usize::from(truth);
            complete += usize::from(truth && all.len() == scene.objects.len());
            chair.add(all.len(), wrong.len());
        }
        let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        let rows = [
            ("caption.truth", share(right, scenes.len())),
            ("caption.complete", share(complete, scenes.len())),
            ("chair.mention", chair.of_mentions()),
            ("chair.caption", chair.of_captions()),
        ];
        Ok(rows.map(|(key, value)| (format!("{prefix}{key}"), value)).into())
    }
}

/// A caption of another scene that is false of scene `index`; should twenty of them not be, its own altered.
fn random_negative(scenes: &[Scene], index: usize, rng: &mut impl Rng) -> String {
    let mut captions = (1..=20).map(|step| scenes[(index + step) % scenes.len()].any_caption(rng));
    let wrong = captions.find(|caption| caption.holds(&scenes[index]) == Some(false));
    wrong.unwrap_or_else(|| scenes[index].altered_caption(rng)).to_string()
}

/// Answers counted by kind.
#[derive(Default)]
struct Tally {
    yes_no: BTreeMap<String, YesNo>,
    exact: BTreeMap<&'static str, (usize, usize)>,
}

impl Tally {
    fn add(&mut self, turn: &Turn, said: &str) {
        let names = match turn.kind {
            QuestionKind::Existence(negatives) => {
                vec!["existence".into(), format!("existence.{}", negative(negatives))]
            }
            QuestionKind::Spatial(relation) => vec!["spatial".into(), format!("spatial.{}", relation_key(relation))],
            other => return self.add_exact(other, turn.answer == said),
        };
        for name in names {
            self.yes_no.entry(name).or_default().add(turn.answer == "yes", said);
        }
    }

    fn add_exact(&mut self, kind: QuestionKind, right: bool) {
        let name = match kind {
            QuestionKind::Count => "count",
            QuestionKind::Colour => "colour",
            QuestionKind::Shape => "shape",
            QuestionKind::Choice(_) => "choice",
            QuestionKind::Where => "where",
            QuestionKind::Which => "which",
            _ => return,
        };
        let (good, all) = self.exact.entry(name).or_default();
        *good += usize::from(right);
        *all += 1;
    }

    fn figures(&self, prefix: &str) -> Figures {
        let mut figures = Figures::new();
        for (name, counts) in &self.yes_no {
            counts.figures(&format!("{prefix}{name}"), &mut figures);
        }
        for (name, (right, all)) in &self.exact {
            figures.insert(format!("{prefix}{name}.accuracy"), *right as f64 / *all as f64);
        }
        figures
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

//! Questions with short answers: lines `{"image": "a.jpg", "question": "…", "answer": "…"}`, with `"answers": [...]` where
//! several people answered, conversations (LLaVA's or TRL's), or VQA's pair of files (Antol et al. 2015), questions and annotations.

use super::{Found, ImageAblation, Item, Kept, SEVERAL, Setup, Source, Task, by_image, score, unmarked};
use crate::data::formats::{CONVERSATIONS, Once, conversation, image};
use crate::eval::generate::Reply;
use crate::eval::metrics::{Measure, guess, vqa};
use crate::eval::pictures::Pictures;
use crate::eval::records::{self, Unread};
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

/// The longest answer in tokens.
const ANSWER: usize = 16;
/// People who answer each question of VQA.
const PEOPLE: usize = 10;

/// One person's answer, by itself or as VQA has it.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected text, a number, true or false, or an object with such an `answer`")]
enum Said {
    Text(String),
    Number(serde_json::Number),
    Truth(bool),
    Entry { answer: Box<Said> },
}

impl Said {
    fn text(self) -> String {
        match self {
            Said::Text(text) => text,
            Said::Number(number) => number.to_string(),
            Said::Truth(truth) => truth.to_string(),
            Said::Entry { answer } => answer.text(),
        }
    }
}

#[derive(Deserialize)]
struct Line {
    question: Option<String>,
    answer: Option<Said>,
    #[serde(default)]
    answers: Vec<Said>,
    answer_type: Option<String>,
    #[serde(flatten)]
    record: Once,
}

impl Line {
    /// All its questions, each with what people answered: a conversation's, asked as in training, or the only one.
    fn asked(self, independent: bool) -> Result<Vec<(Item, Vec<String>)>> {
        let Once(record) = self.record;
        let mut asked = Vec::new();
        if let Some(content) = conversation(&record).transpose()? {
            for turn in 0..content.turns.len() {
                let item = Item::of_record(&content, turn, independent);
                let answer = item.expected.clone();
                asked.push((item, vec![answer]));
            }
        }
        let mut people: Vec<String> = self.answers.into_iter().map(Said::text).collect();
        people.extend(self.answer.filter(|_| people.is_empty()).map(Said::text));
        let answered = self.question.is_none() || !people.is_empty();
        if let Some(question) = self.question {
            let item = Item { image: image(&record)?, question: unmarked(&question), ..Item::default() };
            asked.push((item, people));
        }
        ensure!(
            answered && !asked.is_empty(),
            "expected `question` with `answer` or `answers`, or a conversation: {CONVERSATIONS}"
        );
        Ok(asked)
    }
}

#[derive(Deserialize)]
struct Questions {
    questions: Vec<Question>,
    #[serde(default)]
    data_subtype: Option<String>,
}

#[derive(Deserialize)]
struct Question {
    question_id: u64,
    image_id: u64,
    question: String,
}

#[derive(Deserialize)]
struct Annotations {
    annotations: Vec<Annotation>,
}

#[derive(Deserialize)]
struct Annotation {
    question_id: u64,
    answers: Vec<Said>,
    answer_type: Option<String>,
}

#[derive(Default)]
pub(super) struct Vqa {
    items: Vec<Item>,
    /// What people answered to each.
    people: Vec<Vec<String>>,
    /// The kind of each answer, where it is said.
    kinds: Vec<Option<String>>,
}

impl Vqa {
    pub(super) fn open(source: &Source, pictures: &Pictures) -> Result<Vqa> {
        let read = |file: &Path| records::bytes(file);
        match &source.data[..] {
            [file] => Vqa::lines(&read(file)?, file, source),
            [one, two] => {
                let (first, second) = (read(one)?, read(two)?);
                let name = |subtype: &str, id: u64| name(pictures, subtype, id);
                match records::is_document(&first, "questions") {
                    true => Vqa::pair((&first, one), (&second, two), source, &name),
                    false => Vqa::pair((&second, two), (&first, one), source, &name),
                }
            }
            _ => bail!("vqa takes one file of lines, or VQA's questions and annotations"),
        }
    }

    fn lines(bytes: &[u8], file: &Path, source: &Source) -> Result<Vqa> {
        ensure!(
            !records::is_document(bytes, "questions") && !records::is_document(bytes, "annotations"),
            "{}: one of VQA's two files; give both, questions and annotations, by --data vqa=FILE each",
            file.display()
        );
        let prompt = source.prompt("{}")?;
        let mut vqa = Vqa::default();
        for (line, record) in records::each::<Line>(bytes, file, source.limit)? {
            let kind = record.as_ref().ok().and_then(|record| record.answer_type.clone());
            let asked = record.and_then(|record| {
                let asked = record.asked(source.trained.independent_turns);
                asked.map_err(|error| Unread::new(file, line, error.to_string()))
            });
            let asked = asked.unwrap_or_else(|unread| vec![(Item::unread(unread), Vec::new())]);
            for (item, people) in asked {
                vqa.push(item, &prompt, people, kind.clone());
            }
        }
        Ok(vqa)
    }

    fn pair(
        (questions, file): (&[u8], &Path),
        (annotations, annotations_file): (&[u8], &Path),
        source: &Source,
        name: &dyn Fn(&str, u64) -> Result<String>,
    ) -> Result<Vqa> {
        let prompt = source.prompt("{}")?;
        let questions: Questions = records::document(questions, file)?;
        let annotations: Annotations = records::document(annotations, annotations_file)?;
        let mut answers: HashMap<u64, Annotation> =
            annotations.annotations.into_iter().map(|a| (a.question_id, a)).collect();
        let subtype = questions.data_subtype.unwrap_or_default();
        let mut vqa = Vqa::default();
        for question in questions.questions.into_iter().take(source.limit.unwrap_or(usize::MAX)) {
            let id = question.question_id;
            let found = answers.remove(&id).filter(|annotation| !annotation.answers.is_empty());
            let missing = || format!("{}: no answer to question {id}", annotations_file.display());
            let annotation = found.with_context(missing)?;
            let people = annotation.answers.into_iter().map(Said::text).collect();
            let item =
                Item { image: name(&subtype, question.image_id)?, question: question.question, ..Item::default() };
            vqa.push(item, &prompt, people, annotation.answer_type);
        }
        ensure!(!vqa.items.is_empty(), "{}: not one question", file.display());
        Ok(vqa)
    }

    fn push(&mut self, item: Item, prompt: &str, people: Vec<String>, kind: Option<String>) {
        self.items.push(Item {
            question: prompt.replace("{}", &item.question),
            expected: people.join(SEVERAL),
            ..item
        });
        self.people.push(people);
        self.kinds.push(kind);
    }

    fn of(&self, name: &str, scores: &[f64], clusters: &[usize], chosen: &dyn Fn(usize) -> bool) -> Measure {
        let rows = (0..scores.len()).filter(|&i| chosen(i)).map(|i| (clusters[i], scores[i]));
        Measure::mean(name, rows)
    }
}

/// COCO's name of an image: with its set in front until 2014, the number alone from 2017 on. Where neither is there, it cannot
/// be asked about.
fn name(pictures: &Pictures, subtype: &str, id: u64) -> Result<String> {
    let names = [format!("COCO_{subtype}_{id:012}.jpg"), format!("{id:012}.jpg")];
    let mut found = names.iter().find(|name| pictures.has(name)).cloned();
    for name in &names {
        if found.is_none() {
            found = pictures.find(name)?;
        }
    }
    let [first, _] = names;
    Ok(found.unwrap_or(first))
}

impl Task for Vqa {
    fn items(&self) -> &[Item] {
        &self.items
    }

    fn retain(&mut self, kept: &Kept) {
        kept.select(&mut self.items);
        kept.select(&mut self.people);
        kept.select(&mut self.kinds);
    }

    fn measure(&self, setup: &Setup<'_>, ablation: ImageAblation) -> Result<Found> {
        let answers = setup.answers(&self.items, ablation, ANSWER)?;
        let clusters = by_image(&self.items);
        // An answer that was cut is not what anybody said.
        let both = |(answer, people): (&Reply, &Vec<String>)| match answer.cut {
            true => (0.0, 0.0),
            false => (score(vqa::exact(&answer.text, people)), vqa::accuracy(&answer.text, people)),
        };
        let (exact, accuracy): (Vec<f64>, Vec<f64>) = answers.iter().zip(&self.people).map(both).unzip();
        let asked = self.items.iter().zip(&self.people);
        let guess = guess::by_question(asked.map(|(item, people)| (item.question.as_str(), vqa::right(people))));
        let mut measures = vec![self.of("exact", &exact, &clusters, &|_| true).guessing(guess)];
        let asked_ten = |i: usize| self.people[i].len() == PEOPLE;
        let official = (0..answers.len()).any(asked_ten);
        if official {
            measures.push(self.of("accuracy", &accuracy, &clusters, &asked_ten));
            for kind in self.kinds.iter().flatten().collect::<BTreeSet<_>>() {
                let name = format!("{kind}.accuracy");
                let chosen = |i: usize| asked_ten(i) && self.kinds[i].as_ref() == Some(kind);
                measures.push(self.of(&name, &accuracy, &clusters, &chosen));
            }
        }
        Ok(Found { measures, answers, scores: if official { accuracy } else { exact } })
    }
}

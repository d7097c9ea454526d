//! Classes of images by their names (Radford et al. 2021): a folder with a folder of images for each class. A class is
//! what its prompts describe, `a photo of a {}.` unless others are given; `_` in a folder's name is a space.

use super::{Found, ImageAblation, Item, Kept, Setup, Source, Task, only};
use crate::data::formats::{Ask, Format};
use crate::data::record::{Record, Select};
use crate::eval::generate::Reply;
use crate::eval::metrics::retrieval::{Ties, hit};
use crate::eval::metrics::{Measure, guess};
use anyhow::{Result, ensure};

/// How a class is described.
const PROMPT: &str = "a photo of a {}.";

/// How classes are described: as the command line says, else as in training, else the usual way.
pub(super) fn prompts(source: &Source) -> Vec<String> {
    let given = [&source.prompts, &source.trained.templates];
    let given = given.into_iter().find(|given| !given.is_empty());
    given.cloned().unwrap_or_else(|| vec![PROMPT.into()])
}

pub(super) struct Zeroshot {
    items: Vec<Item>,
    classes: Vec<String>,
    /// The class of each item.
    labels: Vec<usize>,
    prompts: Vec<String>,
}

impl Zeroshot {
    pub(super) fn open(source: &Source) -> Result<Zeroshot> {
        let root = only(&source.data)?;
        let prompts = prompts(source);
        for prompt in &prompts {
            ensure!(prompt.contains("{}"), "--prompt: `{prompt}` has no `{{}}`, the place of the class");
        }
        let (found, _) = Format::Folder.open(root, None, &Select::default(), &Ask::default())?;
        for line in found.passed_over.lines() {
            errln!("{}: {line}", root.display());
        }
        let mut task = Zeroshot { items: Vec::new(), classes: Vec::new(), labels: Vec::new(), prompts };
        // The records come class by class.
        for class in found.records.chunk_by(|a, b| a.content.class == b.content.class) {
            task.add(&class[..class.len().min(source.limit.unwrap_or(usize::MAX))]);
        }
        ensure!(task.classes.len() > 1, "{}: fewer than two classes with images", root.display());
        Ok(task)
    }

    /// The images of one class.
    fn add(&mut self, records: &[Record]) {
        let class = records[0].content.class.as_deref().unwrap_or_default().replace('_', " ");
        self.items.extend(records.iter().map(|record| Item {
            image: record.id.clone(),
            question: "which class?".into(),
            expected: class.clone(),
            ..Item::default()
        }));
        // Folders of one name, but for `_`, are one class.
        let known = self.classes.iter().position(|known| *known == class);
        let label = known.unwrap_or(self.classes.len());
        if known.is_none() {
            self.classes.push(class);
        }
        self.labels.resize(self.items.len(), label);
    }

    /// Every class in every description, class by class.
    fn described(&self) -> Vec<String> {
        let described = |class: &String| {
            let prompts = self.prompts.iter();
            prompts.map(|prompt| prompt.replace("{}", class)).collect::<Vec<_>>()
        };
        self.classes.iter().flat_map(described).collect()
    }
}

impl Task for Zeroshot {
    fn items(&self) -> &[Item] {
        &self.items
    }

    fn retain(&mut self, kept: &Kept) {
        kept.select(&mut self.items);
        kept.select(&mut self.labels);
    }

    fn texts(&self) -> Vec<&str> {
        self.classes.iter().chain(&self.prompts).map(String::as_str).collect()
    }

    fn measure(&self, setup: &Setup<'_>, ablation: ImageAblation) -> Result<Found> {
        let comparer = setup.comparer()?;
        let classes = comparer.texts(&self.described())?.means(self.prompts.len());
        let names: Vec<&str> = self.items.iter().map(|item| item.image.as_str()).collect();
        let scores = comparer.scores(&setup.features(&names, ablation)?, &classes)?;
        let within = |k: usize| {
            let rows = scores.iter().zip(&self.labels).enumerate();
            let rows = rows.map(move |(i, (row, &label))| (i, hit(row, |class| class == label, k, Ties::Even)));
            let guess = guess::most_frequent(self.labels.iter(), k);
            Measure::mean(format!("top{k}"), rows).guessing(guess)
        };
        let mut measures = vec![within(1)];
        if self.classes.len() > 5 {
            measures.push(within(5));
        }
        let best = |row: &Vec<f32>| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or(0);
        let first = scores.iter().zip(&self.labels);
        Ok(Found {
            measures,
            answers: scores.iter().map(|row| Reply::whole(&self.classes[best(row)])).collect(),
            scores: first.map(|(row, &label)| hit(row, |class| class == label, 1, Ties::Even)).collect(),
        })
    }
}

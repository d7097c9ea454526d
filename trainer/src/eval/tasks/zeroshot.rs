//! Classes of images by their names (Radford et al. 2021): a folder with a folder of images for each class. A class is
//! what its prompts describe, `a photo of a {}.` unless others are given; `_` in a folder's name is a space.

use super::{Found, Item, Setup, Source, Task, View, majority, only, score};
use crate::data::formats::{Ask, Format};
use crate::data::record::{Record, Select};
use crate::eval::metrics::Measure;
use anyhow::{Result, ensure};

/// How a class is described.
const PROMPT: &str = "a photo of a {}.";
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
        let mut prompts = source.prompts.clone();
        if prompts.is_empty() {
            prompts.push(PROMPT.into());
        }
        for prompt in &prompts {
            ensure!(
                prompt.contains("{}"),
                "--prompt: `{prompt}` has no `{{}}`, the place of the class"
            );
        }
        let (found, _) = Format::Folder.open(root, None, &Select::default(), &Ask::default())?;
        for line in found.passed_over.lines() {
            say_aside!("{}: {line}", root.display());
        }
        let mut task = Zeroshot {
            items: Vec::new(),
            classes: Vec::new(),
            labels: Vec::new(),
            prompts,
        };
        // The records come class by class.
        for class in found.records.chunk_by(|a, b| a.content.class == b.content.class) {
            task.add(&class[..class.len().min(source.limit.unwrap_or(usize::MAX))]);
        }
        ensure!(
            task.classes.len() > 1,
            "{}: fewer than two classes with images",
            root.display()
        );
        Ok(task)
    }

    /// The images of one class.
    fn add(&mut self, records: &[Record]) {
        let class = records[0]
            .content
            .class
            .as_deref()
            .unwrap_or_default()
            .replace('_', " ");
        self.items.extend(records.iter().map(|record| Item {
            image: record.id.clone(),
            question: "which class?".into(),
            expected: class.clone(),
        }));
        self.labels.resize(self.items.len(), self.classes.len());
        self.classes.push(class);
    }
}

impl Task for Zeroshot {
    fn items(&self) -> &[Item] {
        &self.items
    }

    fn measure(&self, setup: &Setup<'_>, view: View) -> Result<Found> {
        let comparer = setup.comparer()?;
        let described = |class: &String| {
            self.prompts
                .iter()
                .map(|prompt| prompt.replace("{}", class))
                .collect::<Vec<_>>()
        };
        let texts: Vec<String> = self.classes.iter().flat_map(described).collect();
        let classes = comparer.texts(&texts)?.means(self.prompts.len());
        let names: Vec<&str> = self.items.iter().map(|item| item.image.as_str()).collect();
        let scores = comparer.scores(&setup.features(&names, view)?, &classes)?;
        // Ties count against the right class.
        let rank = |(row, &label): (&Vec<f32>, &usize)| {
            let own = row[label];
            row.iter()
                .enumerate()
                .filter(|(class, score)| *class != label && **score >= own)
                .count()
        };
        let ranks: Vec<usize> = scores.iter().zip(&self.labels).map(rank).collect();
        let within = |k: usize| {
            let rows = ranks.iter().enumerate().map(move |(i, rank)| (i, score(*rank < k)));
            Measure::mean(format!("top{k}"), rows)
        };
        let mut measures = vec![within(1).guessing(majority(self.labels.iter()))];
        if self.classes.len() > 5 {
            measures.push(within(5).guessing(5.0 / self.classes.len() as f64));
        }
        let best = |row: &Vec<f32>| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or(0);
        Ok(Found {
            measures,
            answers: scores.iter().map(|row| self.classes[best(row)].clone()).collect(),
            scores: ranks.iter().map(|rank| score(*rank == 0)).collect(),
        })
    }
}

//! Classes of images by their names (Radford et al. 2021): a folder with a folder of images for each class. A class is
//! what its prompts describe, `a photo of a {}.` unless others are given; `_` in a folder's name is a space.

use super::{Found, Item, Setup, Source, Task, View, majority, only, score};
use crate::eval::metrics::Measure;
use anyhow::{Context, Result, ensure};
use std::path::Path;

/// How a class is described.
const PROMPT: &str = "a photo of a {}.";
/// The endings of image files.
const ENDINGS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

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
        ensure!(
            root.is_dir(),
            "{}: expected a folder with a folder for each class",
            root.display()
        );
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
        let mut task = Zeroshot {
            items: Vec::new(),
            classes: Vec::new(),
            labels: Vec::new(),
            prompts,
        };
        for folder in names(root)?.into_iter().filter(|name| root.join(name).is_dir()) {
            task.add(root, &folder, source.limit)?;
        }
        ensure!(
            task.classes.len() > 1,
            "{}: fewer than two classes with images",
            root.display()
        );
        Ok(task)
    }

    /// The images of one class, at most `limit`.
    fn add(&mut self, root: &Path, folder: &str, limit: Option<usize>) -> Result<()> {
        let is_image = |name: &String| {
            let ending = Path::new(name).extension().map(|ending| ending.to_ascii_lowercase());
            ending.is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known))
        };
        let images = names(&root.join(folder))?
            .into_iter()
            .filter(is_image)
            .take(limit.unwrap_or(usize::MAX));
        let (class, before) = (folder.replace('_', " "), self.items.len());
        self.items.extend(images.map(|image| Item {
            image: format!("{folder}/{image}"),
            question: "which class?".into(),
            expected: class.clone(),
        }));
        if self.items.len() > before {
            self.labels.resize(self.items.len(), self.classes.len());
            self.classes.push(class);
        }
        Ok(())
    }
}

/// What is in a folder, by name.
fn names(folder: &Path) -> Result<Vec<String>> {
    let unreadable = || format!("{}: cannot be read", folder.display());
    let entries = std::fs::read_dir(folder).with_context(unreadable)?;
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        let name = entry.with_context(unreadable)?.file_name();
        name.into_string()
            .ok()
            .with_context(|| format!("{}: a name that is not UTF-8", folder.display()))
    };
    let mut names = entries.map(name).collect::<Result<Vec<String>>>()?;
    names.sort();
    Ok(names)
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

//! A share of a data set that is held out, by images: no image is in both parts.

use super::corpus::Part;
use super::record::Found;
use anyhow::{Result, ensure};
use sha2::{Digest, Sha256};
use std::collections::HashMap;

impl Part {
    /// Leaves the records of this part. Records that share an image, if only by way of others, stay together. Which are held
    /// out depends on the names of the images alone: the order of the records and the run's seed change nothing.
    ///
    /// # Errors
    /// When there are not two images to part.
    pub(super) fn take(self, found: &mut Found) -> Result<()> {
        let groups = groups(found);
        let mut least = HashMap::<usize, &str>::new();
        for (record, &group) in found.records.iter().zip(&groups) {
            for name in &record.content.images {
                let least = least.entry(group).or_insert(name);
                *least = (*least).min(name);
            }
        }
        let hashed = least.iter().map(|(group, name)| (Sha256::digest(name).into(), *group));
        let mut order: Vec<([u8; 32], usize)> = hashed.collect();
        order.sort_unstable();
        ensure!(order.len() > 1, "{} image, at least two are needed to hold one out", order.len());
        let count = (self.share * order.len() as f64).round() as usize;
        let heldout: HashMap<usize, bool> = order
            .iter()
            .enumerate()
            .map(|(place, (_, group))| (*group, place < count.clamp(1, order.len() - 1)))
            .collect();
        let mut groups = groups.into_iter();
        found.records.retain(|_| groups.next().and_then(|group| heldout.get(&group)) == Some(&self.heldout));
        if self.heldout {
            // They are counted with the rest.
            (found.bad, found.text_only) = Default::default();
        }
        Ok(())
    }
}

/// For each record the number of its group: those that share images.
fn groups(found: &Found) -> Vec<usize> {
    let mut parents: Vec<usize> = (0..found.records.len()).collect();
    let mut seen = HashMap::new();
    for (number, record) in found.records.iter().enumerate() {
        for name in &record.content.images {
            let other = *seen.entry(name.as_str()).or_insert(number);
            let (a, b) = (root(&mut parents, other), root(&mut parents, number));
            parents[a.max(b)] = a.min(b);
        }
    }
    (0..parents.len()).map(|number| root(&mut parents, number)).collect()
}

fn root(parents: &mut [usize], mut number: usize) -> usize {
    while parents[number] != number {
        parents[number] = parents[parents[number]];
        number = parents[number];
    }
    number
}

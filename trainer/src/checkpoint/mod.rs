//! Checkpoints: all that a run needs to go on as if it had never stopped.
//!
//! `checkpoint-N`, after N steps of all phases together, is the model as a Hugging Face folder and `state/`: the
//! optimiser's numbers and where the run was. It is made under another name, brought to the disk, sealed with a manifest
//! of sizes and hashes and renamed: a crash at any moment leaves the checkpoints before it as they were. Nothing random
//! is kept: batches, dropout and rounding draw from seeds and the number of the step alone.

mod manifest;
mod seal;
mod state;

pub use seal::Seal;
pub use state::{Best, Place, read_numbers, read_weights, write_numbers};

use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What stands in front of a checkpoint's number.
const PREFIX: &str = "checkpoint-";
/// What stands in front of the number of one that is being made or removed.
const UNFINISHED: &str = "tmp-checkpoint-";

/// The checkpoints of one run.
#[derive(Debug)]
pub struct Checkpoints {
    run: PathBuf,
    keep: usize,
}

/// One that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// Steps before it, of all phases together.
    pub number: usize,
}

impl Checkpoints {
    /// Those in the folder of a run, of which the newest `keep` are to stay.
    pub fn of(run: &Path, keep: usize) -> Checkpoints {
        Checkpoints { run: run.to_owned(), keep: keep.max(1) }
    }

    /// Makes a checkpoint of what `write` puts into a folder, then removes old ones; `precious` stays in any case. One that
    /// is there already and whole is left as it is.
    ///
    /// # Errors
    /// Those of `write` and of the file system; the checkpoints before stay as they were then.
    pub fn save(
        &self,
        number: usize,
        precious: Option<usize>,
        write: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Checkpoint> {
        let path = self.path(number);
        let made = Checkpoint { path: path.clone(), number };
        if path.exists() {
            if manifest::verify(&path).is_ok() {
                return Ok(made);
            }
            self.remove(number)?;
        }
        let unfinished = self.unfinished(number);
        let filled = fill(&unfinished, write).and_then(|()| {
            fs::rename(&unfinished, &path).with_context(|| format!("{}: cannot be renamed", unfinished.display()))?;
            sync(&self.run)
        });
        if let Err(error) = filled {
            // Best effort: what stays is removed by the next run that goes on from here.
            let _ = fs::remove_dir_all(&unfinished);
            return Err(error.context(format!("{} was not made", path.display())));
        }
        manifest::verify(&path).context("a checkpoint just made cannot be read back; older ones are kept")?;
        self.prune(precious)?;
        Ok(made)
    }

    /// Where a run begins that goes on from `number`, or from the newest that is whole; None where there is none yet. Names those
    /// that are passed over.
    ///
    /// # Errors
    /// When that checkpoint is not there or not whole.
    pub fn find(&self, number: Option<usize>) -> Result<Option<Checkpoint>> {
        if let Some(number) = number {
            return self.at(number).map(Some);
        }
        let (found, damaged) = self.newest()?;
        damaged.iter().for_each(|why| errln!("passed over: {why}"));
        Ok(found)
    }

    /// The newest that is whole; those passed over, with what is wrong with them.
    ///
    /// # Errors
    /// When the run's folder cannot be read.
    pub fn newest(&self) -> Result<(Option<Checkpoint>, Vec<String>)> {
        let mut damaged = Vec::new();
        for number in self.numbers()?.into_iter().rev() {
            let path = self.path(number);
            match manifest::verify(&path) {
                Ok(()) => return Ok((Some(Checkpoint { path, number }), damaged)),
                Err(error) => damaged.push(format!("{error:#}")),
            }
        }
        Ok((None, damaged))
    }

    /// The one with this number.
    ///
    /// # Errors
    /// When there is none, or it is not whole.
    pub fn at(&self, number: usize) -> Result<Checkpoint> {
        let path = self.path(number);
        if !path.exists() {
            let all: Vec<String> = self.numbers()?.iter().map(usize::to_string).collect();
            let run = self.run.display();
            match all.is_empty() {
                true => bail!("{run}: no checkpoint {number}; there is none yet"),
                false => bail!("{run}: no checkpoint {number}; there are {}", all.join(", ")),
            }
        }
        manifest::verify(&path).with_context(|| format!("{}: not whole", path.display()))?;
        Ok(Checkpoint { path, number })
    }

    /// Removes what a run that died was in the midst of making or removing, and checkpoints behind `number`.
    pub fn tidy(&self, number: usize) -> Result<()> {
        for later in self.numbers()?.into_iter().filter(|&later| later > number) {
            self.remove(later)?;
        }
        let unfinished = numbered(&self.run, UNFINISHED)?;
        unfinished.into_iter().try_for_each(|number| clear(&self.unfinished(number)))
    }

    fn path(&self, number: usize) -> PathBuf {
        self.run.join(format!("{PREFIX}{number}"))
    }

    /// Where one is made or removed.
    fn unfinished(&self, number: usize) -> PathBuf {
        self.run.join(format!("{UNFINISHED}{number}"))
    }

    /// Removes all but the newest, and the precious one.
    fn prune(&self, precious: Option<usize>) -> Result<()> {
        let numbers = self.numbers()?;
        for &number in numbers.iter().rev().skip(self.keep) {
            if Some(number) != precious {
                self.remove(number)?;
            }
        }
        Ok(())
    }

    /// Removes one; while that lasts it has another name.
    fn remove(&self, number: usize) -> Result<()> {
        let path = self.path(number);
        let going = self.unfinished(number);
        clear(&going)?;
        fs::rename(&path, &going).with_context(|| format!("{}: cannot be removed", path.display()))?;
        clear(&going)
    }

    /// Those there are, whole or not, in order.
    fn numbers(&self) -> Result<Vec<usize>> {
        numbered(&self.run, PREFIX)
    }
}

/// Fills a new folder and seals it.
fn fill(folder: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    clear(folder)?;
    fs::create_dir(folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
    write(folder)?;
    manifest::seal(folder)?;
    sync(folder)
}

/// Brings a folder's list of names to the disk.
fn sync(folder: &Path) -> Result<()> {
    let open = File::open(folder).and_then(|folder| folder.sync_all());
    open.with_context(|| format!("{}: cannot be brought to the disk", folder.display()))
}

/// Removes what has a name of ours: a folder with all that is in it, a file, a link but not what it leads to.
fn clear(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(about) if about.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    removed.with_context(|| format!("{}: cannot be removed", path.display()))
}

/// The numbers of the folders whose names are `prefix` and a number as it is written here, in order; others are not ours.
fn numbered(folder: &Path, prefix: &str) -> Result<Vec<usize>> {
    let cannot = || format!("{}: cannot be read", folder.display());
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let number = name.strip_prefix(prefix).and_then(|number| number.parse::<usize>().ok());
        let ours =
            |number: &usize| name == format!("{prefix}{number}") && entry.file_type().is_ok_and(|kind| kind.is_dir());
        numbers.extend(number.filter(ours));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(text: &str) -> impl FnOnce(&Path) -> Result<()> {
        let text = text.to_owned();
        move |folder| Ok(fs::write(folder.join("weights"), text)?)
    }

    #[test]
    fn the_newest_stay_and_the_precious_one() {
        let run = tempfile::tempdir().unwrap();
        let all = Checkpoints::of(run.path(), 2);
        for number in [5, 10, 15, 100] {
            let made = all.save(number, Some(5), put("x")).unwrap();
            assert_eq!(all.newest().unwrap(), (Some(made), Vec::new()));
        }
        assert_eq!(all.numbers().unwrap(), [5, 15, 100]);
        assert_eq!(all.at(15).unwrap().number, 15);
        let text = all.at(10).unwrap_err().to_string();
        assert!(text.ends_with("no checkpoint 10; there are 5, 15, 100"), "{text}");
    }

    #[test]
    fn a_checkpoint_that_cannot_be_made_leaves_the_one_before() {
        let run = tempfile::tempdir().unwrap();
        let all = Checkpoints::of(run.path(), 1);
        all.save(1, None, put("good")).unwrap();
        let failed = all.save(2, None, |folder| {
            fs::write(folder.join("weights"), "half")?;
            bail!("the disk is full")
        });
        let text = format!("{:#}", failed.unwrap_err());
        assert!(text.contains("checkpoint-2 was not made: the disk is full"), "{text}");
        assert_eq!(names(run.path()), ["checkpoint-1"]);
        assert_eq!(all.newest().unwrap().0.map(|found| found.number), Some(1));
    }

    #[test]
    fn damaged_ones_are_passed_over_and_named_and_can_be_made_again() {
        let run = tempfile::tempdir().unwrap();
        let all = Checkpoints::of(run.path(), 3);
        for number in [1, 2, 3] {
            all.save(number, None, put("good")).unwrap();
        }
        fs::write(run.path().join("checkpoint-3/weights"), "gone").unwrap();
        fs::remove_file(run.path().join("checkpoint-2/manifest.json")).unwrap();
        let (found, damaged) = all.newest().unwrap();
        assert_eq!(found.map(|found| found.number), Some(1));
        assert!(damaged[0].contains("checkpoint-3/weights") && damaged[1].contains("manifest.json"), "{damaged:?}");
        assert!(format!("{:#}", all.at(3).unwrap_err()).contains("altered"));
        all.save(3, None, put("better")).unwrap();
        assert_eq!(fs::read_to_string(all.at(3).unwrap().path.join("weights")).unwrap(), "better");
    }

    #[test]
    fn tidying_leaves_what_a_run_goes_on_from() {
        let run = tempfile::tempdir().unwrap();
        let all = Checkpoints::of(run.path(), 3);
        for number in [1, 2, 3] {
            all.save(number, None, put("good")).unwrap();
        }
        fs::create_dir(run.path().join("tmp-checkpoint-4")).unwrap();
        let theirs = ["checkpoint-+3", "checkpoint-007", "metrics.jsonl", "tmp-checkpoint-5", "tmp-notes"];
        for name in theirs {
            fs::write(run.path().join(name), "").unwrap();
        }
        fs::create_dir(run.path().join("checkpoint-0009")).unwrap();
        all.tidy(2).unwrap();
        let left =
            [&["checkpoint-+3", "checkpoint-0009", "checkpoint-007", "checkpoint-1", "checkpoint-2"], &theirs[2..]];
        assert_eq!(names(run.path()), left.concat());
        all.save(5, None, put("what is in the way of a name of ours goes")).unwrap();
        assert!(!run.path().join("tmp-checkpoint-5").exists());
    }

    /// In the alphabet's order.
    fn names(folder: &Path) -> Vec<String> {
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(name).collect();
        names.sort();
        names
    }
}

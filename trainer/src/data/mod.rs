//! Data to train and evaluate on.

pub mod bad_records;
pub mod corpus;
mod corpus_source;
mod features;
pub mod images;
pub mod llava;
mod prepare;
pub mod scenes;
mod source;

pub use corpus_source::CorpusSource;
pub use features::Features;
pub use prepare::Prepare;
pub use source::{Conversation, Pair, SceneSource, Source};

#[cfg(test)]
mod test_data {
    use std::path::{Path, PathBuf};

    /// The folder of one real data set: below `LENSLET_DATA`, else `../shared/data`. None, said aloud, where it is
    /// absent; with `CI` set that is a failure.
    pub(super) fn folder(name: &str) -> Option<PathBuf> {
        let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
        let root = std::env::var_os("LENSLET_DATA").map_or(beside, PathBuf::from);
        let folder = root.join(name);
        if folder.is_dir() {
            return Some(folder);
        }
        let message = format!(
            "{} is absent; set LENSLET_DATA to the folder that holds `{name}`",
            folder.display()
        );
        assert!(std::env::var_os("CI").is_none(), "{message}");
        eprintln!("not run: {message}");
        None
    }
}

//! Data to train and evaluate on.

pub mod bad_records;
pub mod corpus;
mod corpus_source;
pub mod example;
mod features;
pub(crate) mod files;
pub mod filter;
pub mod formats;
pub mod images;
pub mod order;
#[cfg(feature = "parquet")]
mod parquet;
pub mod passed_over;
pub mod pictures;
mod prepare;
pub mod record;
pub mod scenes;
pub mod screen;
pub mod shards;
mod share;
mod source;
pub mod survey;
mod unknown_words;

pub use corpus_source::CorpusSource;
pub use features::Features;
pub use prepare::{Layout, Prepare, blank, pixels, question};
pub use source::{Conversation, Pair, SceneSource, Source};
pub use unknown_words::UnknownWords;

#[cfg(test)]
#[allow(unreachable_pub)]
#[path = "../../../model/tests/common/data.rs"]
mod test_data;

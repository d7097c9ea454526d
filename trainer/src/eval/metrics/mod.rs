//! What is measured, as pure functions of answers and what was expected: one metric, one file.

pub mod bleu;
pub mod caption_tokens;
pub mod chair;
pub mod cider;
pub mod coco_objects;
pub mod guess;
pub mod interval;
mod measure;
pub mod nlvr;
pub mod retrieval;
pub mod vqa;
pub mod yes_no;

pub use interval::Interval;
pub use measure::{Formula, Measure, share};

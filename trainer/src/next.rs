//! What to try after a run: commands that fit its data and its model.

use crate::data::formats::Format;
use crate::data::scenes::World;
use crate::dual::DualSession;
use crate::recipe::Recipe;
use crate::session::{Dataset, Session};
use crate::shell::Command;
use std::path::{Path, PathBuf};

/// The recipe of the larger world of scenes, in a checkout.
const FULL: &str = "recipes/scenes-full.toml";

/// After a vision-language model: one of its questions about one of its images, its table again, and other data.
pub(crate) fn of_vlm(session: &Session, run: &Path, example: Option<(PathBuf, &str)>) -> Vec<Command> {
    let ask = example.map(|(image, question)| {
        let ask = Command::new("generate").flag("--model", run).flag("--image", image);
        ask.flag("--prompt", question)
    });
    ask.into_iter().chain(measure(&session.data, run)).chain(other_data(&session.recipe)).collect()
}

/// After a dual encoder, which compares and does not answer.
pub(crate) fn of_dual(session: &DualSession, run: &Path) -> Vec<Command> {
    let data = &session.recipe.data;
    let heldout = data.heldout_path.as_ref();
    let task = |name: &str, data: &Path| {
        let mut value = std::ffi::OsString::from(format!("{name}="));
        value.push(data);
        Command::new("eval").flag("--model", run).flag("--tasks", name).flag("--data", value)
    };
    // Files that the tasks read as they are; elsewhere the names are to be filled in.
    let retrieval = match (data.source.format(), heldout, data.heldout_images.as_ref().or(data.images.as_ref())) {
        (Some(Format::Coco | Format::Llava), Some(path), Some(images)) => {
            task("retrieval", path).flag("--images", images)
        }
        _ => task("retrieval", Path::new("CAPTIONS")).flag("--images", "IMAGES"),
    };
    let zeroshot = match (data.source.format(), heldout) {
        (Some(Format::Folder), Some(path)) => task("zeroshot", path),
        _ => task("zeroshot", Path::new("CLASSES")),
    };
    let all = measure(&session.data, run).into_iter().chain([retrieval, zeroshot]);
    all.chain(other_data(&session.recipe)).collect()
}

/// The table again: of scenes on others, of data on what is held out, if anything is.
fn measure(data: &Dataset, run: &Path) -> Option<Command> {
    let eval = Command::new("eval").flag("--model", run);
    match data {
        Dataset::Scenes(_) => Some(eval.plain("--seed 1")),
        Dataset::Corpus { heldout, .. } => heldout.as_ref().map(|_| eval),
    }
}

/// After scenes: the larger world, and data as people have them.
fn other_data(recipe: &Recipe) -> Vec<Command> {
    if recipe.data.source.format().is_some() {
        return Vec::new();
    }
    let is_small = recipe.data.world == Some(World::Small) && Path::new(FULL).exists();
    let full = is_small.then(|| Command::new("train").flag("--recipe", FULL));
    let example = Command::new("data example").plain("data/example");
    full.into_iter().chain([example]).collect()
}

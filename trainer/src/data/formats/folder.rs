//! A folder of images for each class, `cats/1.jpg`, `dogs/7.png`: what an image shows is the name of its folder, and a
//! caption says so in one of the prompts of zero-shot classification (Radford et al. 2021), such as `a photo of a {}.`.

use super::{Ask, is_image};
use crate::data::files::{entries, walk};
use crate::data::passed_over::PassedOver;
use crate::data::record::{Content, Found, Record, Select};
use anyhow::{Result, bail, ensure};
use std::collections::HashMap;
use std::path::Path;

/// The most images of a folder.
const MAX_IMAGES: usize = 1 << 27;

/// The images below `root`, class by class, in alphabetical order. Links are followed, as by torchvision's `ImageFolder`;
/// classes without an image are passed over by name.
///
/// # Errors
/// When a folder cannot be read, or there is no image in any class.
pub(super) fn records(root: &Path, select: &Select, ask: &Ask) -> Result<Found> {
    ensure!(root.is_dir(), "{}: not a folder with a folder for each class", root.display());
    let (mut found, mut passed) = (Found::default(), PassedOver::default());
    let mut alike = HashMap::<String, String>::new();
    for class in entries(root, &mut passed)? {
        if !class.folder {
            passed.add("files beside the folders of classes", class.name);
            continue;
        }
        let class = class.name;
        let before = found.records.len();
        let more = images(root, &class, select, ask, &mut found, &mut passed)?;
        if found.records.len() == before {
            passed.add("classes without a png, jpg, jpeg or webp", class);
        } else if let Some(other) = alike.insert(spoken(&class).to_lowercase(), class.clone()) {
            // Both are kept; whoever meant one is told.
            passed.add(
                "differences between classes, which case or `_` alone tells apart",
                format!("{other} and {class}"),
            );
        }
        if !more {
            break;
        }
    }
    let listed: Vec<String> = passed.lines().collect();
    if found.records.is_empty() {
        bail!(
            "{}: no png, jpg, jpeg or webp in the folders of its classes (CLASS/IMAGE)\n{}",
            root.display(),
            listed.join("\n")
        );
    }
    found.passed_over = passed;
    Ok(found)
}

/// A class as texts name it.
fn spoken(class: &str) -> String {
    class.replace('_', " ")
}

/// Adds the images of one class; whether more are wanted.
fn images(
    root: &Path,
    class: &str,
    select: &Select,
    ask: &Ask,
    found: &mut Found,
    passed: &mut PassedOver,
) -> Result<bool> {
    let says = spoken(class);
    let captions = ask.templates.iter().map(|template| template.replace("{}", &says));
    let captions: Vec<String> = captions.collect();
    walk(root, class, passed, &mut |name, passed| {
        if !is_image(&name) {
            passed.add("files in classes that are no png, jpg, jpeg or webp", name);
            return true;
        }
        let content = Content::captioned(name.clone(), &ask.question, captions.clone());
        found.records.extend(content.map(|content| Record {
            line: 0,
            id: name,
            bytes: None,
            content: Content { class: Some(class.into()), ..content },
        }));
        !select.is_full(found) && found.records.len() < MAX_IMAGES
    })
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;

//! A folder of images for each class, `cats/1.jpg`, `dogs/7.png`: what an image shows is the name of its folder, and a
//! caption says so in one of the prompts of zero-shot classification (Radford et al. 2021), such as `a photo of a {}.`.

use super::Ask;
use crate::data::record::{Content, Found, Record, Select};
use anyhow::{Context, Result, bail, ensure};
use std::path::Path;

/// Folders within folders that are looked into.
const MAX_DEPTH: usize = 16;
/// The most images of a folder.
const MAX_IMAGES: usize = 1 << 27;

/// The images below `root`, class by class, in alphabetical order.
///
/// # Errors
/// When a folder cannot be read, or there is no image in any class.
pub(super) fn records(root: &Path, select: &Select, ask: &Ask) -> Result<Found> {
    ensure!(
        root.is_dir(),
        "{}: not a folder with a folder for each class",
        root.display()
    );
    let mut found = Found::default();
    for class in entries(root)? {
        if !class.folder {
            continue;
        }
        let says = class.name.replace('_', " ");
        let captions: Vec<String> = ask
            .templates
            .iter()
            .map(|template| template.replace("{}", &says))
            .collect();
        let add = &mut |name: String| {
            let content = Content::captioned(name.clone(), &ask.question, captions.clone());
            found.records.extend(content.map(|content| Record {
                line: 0,
                id: name,
                bytes: None,
                content: Content {
                    class: Some(class.name.clone()),
                    ..content
                },
            }));
            !select.is_full(&found) && found.records.len() < MAX_IMAGES
        };
        if !walk(root, &class.name, 1, add)? {
            break;
        }
    }
    if found.records.is_empty() {
        bail!(
            "{}: no png, jpg, jpeg or webp in the folders of its classes (CLASS/IMAGE)",
            root.display()
        );
    }
    Ok(found)
}

/// Hands `add` the images below `root/inner`; ends when it says so.
fn walk(root: &Path, inner: &str, depth: usize, add: &mut dyn FnMut(String) -> bool) -> Result<bool> {
    ensure!(
        depth <= MAX_DEPTH,
        "{}: more than {MAX_DEPTH} folders deep",
        root.join(inner).display()
    );
    for entry in entries(&root.join(inner))? {
        let name = format!("{inner}/{}", entry.name);
        let more = match entry.folder {
            true => walk(root, &name, depth + 1, add)?,
            false => !super::is_image(&entry.name) || add(name),
        };
        if !more {
            return Ok(false);
        }
    }
    Ok(true)
}

struct Entry {
    name: String,
    folder: bool,
}

/// What lies in a folder, in alphabetical order; hidden files and names that are not text are left out.
fn entries(folder: &Path) -> Result<Vec<Entry>> {
    let about = || format!("{}: cannot be read", folder.display());
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(about)? {
        let entry = entry.with_context(about)?;
        // A link to a folder could lead back here.
        let folder = entry.file_type().with_context(about)?.is_dir();
        match entry.file_name().into_string() {
            Ok(name) if !name.starts_with('.') => entries.push(Entry { name, folder }),
            _ => {}
        }
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

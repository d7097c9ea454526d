//! Images with captions, and with the objects that they show where that is known: COCO's annotations, lines
//! `{"file": "a.jpg", "captions": [...], "objects": [{"category": "dog"}, …]}`, or conversations, LLaVA's or
//! TRL's, whose first answer is the caption.

use super::{Item, Source};
use crate::data::formats::{CONVERSATIONS, Once, conversation, image};
use crate::data::passed_over::PassedOver;
use crate::eval::records::{self, Unread};
use anyhow::{Result, bail, ensure};
use serde::Deserialize;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::path::Path;

/// An image and what is known of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Captioned {
    pub(super) image: String,
    /// What people wrote.
    pub(super) captions: Vec<String>,
    /// Categories of what is there; None where nobody looked.
    pub(super) objects: Option<BTreeSet<String>>,
    /// How the data ask for a caption.
    pub(super) question: Option<String>,
    /// What the model is told before.
    pub(super) system: Option<String>,
    /// Images behind the first.
    pub(super) more_images: Vec<String>,
    /// Why it cannot be read, `image` being its place.
    pub(super) fault: Option<String>,
}

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    captions: Vec<String>,
    caption: Option<String>,
    objects: Option<Vec<Object>>,
    /// The name of the image, as some have it.
    #[serde(alias = "file_name")]
    file: Option<String>,
    #[serde(flatten)]
    record: Once,
}

#[derive(Deserialize)]
struct Object {
    category: String,
}

/// COCO's captions, or its instances.
#[derive(Deserialize)]
struct Coco {
    images: Vec<CocoImage>,
    annotations: Vec<CocoAnnotation>,
    #[serde(default)]
    categories: Vec<CocoCategory>,
}

#[derive(Deserialize)]
struct CocoImage {
    id: u64,
    file_name: String,
}

#[derive(Deserialize)]
struct CocoAnnotation {
    image_id: u64,
    caption: Option<String>,
    category_id: Option<u64>,
}

#[derive(Deserialize)]
struct CocoCategory {
    id: u64,
    name: String,
}

/// What is one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Per {
    /// An image, with the captions of all its records.
    Image,
    /// A question about images. Without one the records have the same, as they do where the command line gives it.
    Question,
}

/// The images of all files, records about the same as one; at most `limit`, the first.
pub(super) fn read(source: &Source, per: Per) -> Result<Vec<Captioned>> {
    let mut all = Vec::new();
    for file in &source.data {
        all.extend(parse(&records::bytes(file)?, file)?);
    }
    let given = !source.prompts.is_empty();
    let mut merged = merge(all, |one| {
        let (question, system) = match per {
            Per::Image => (None, None),
            Per::Question => (one.question.clone().filter(|_| !given), one.system.clone()),
        };
        (one.image.clone(), one.more_images.clone(), question, system)
    });
    let mut passed = PassedOver::default();
    for image in &mut merged {
        let before = image.captions.len();
        image.captions.retain(|caption| !caption.trim().is_empty());
        (image.captions.len()..before).for_each(|_| passed.add("captions that say nothing", &image.image));
    }
    for line in passed.lines() {
        errln!("{line}");
    }
    merged.truncate(source.limit.unwrap_or(usize::MAX));
    Ok(merged)
}

/// One file's images, perhaps one of them several times.
pub(super) fn parse(bytes: &[u8], file: &Path) -> Result<Vec<Captioned>> {
    if records::is_document(bytes, "annotations") {
        return coco(records::document(bytes, file)?, file);
    }
    let lines = records::each::<Line>(bytes, file, None)?.into_iter();
    let captioned = |(number, line): (usize, Result<Line, Unread>)| {
        let read = line.and_then(|line| captioned(line).map_err(|error| Unread::new(file, number, error.to_string())));
        read.unwrap_or_else(|Unread { place, why }| Captioned {
            image: place,
            fault: Some(why),
            ..Captioned::default()
        })
    };
    Ok(lines.map(captioned).collect())
}

fn captioned(line: Line) -> Result<Captioned> {
    let Once(mut record) = line.record;
    if let Some(file) = line.file {
        ensure!(!record.contains_key("image"), "both `image` and `file`");
        record.insert("image".into(), file.into());
    }
    let mut found = match conversation(&record).transpose()? {
        Some(content) => {
            let item = Item::of_record(&content, 0, true);
            Captioned {
                image: item.image,
                more_images: item.more_images,
                captions: vec![item.expected],
                objects: None,
                question: Some(item.question),
                system: item.system,
                fault: None,
            }
        }
        None => Captioned { image: image(&record)?, ..Captioned::default() },
    };
    let captions: Vec<String> = line.captions.into_iter().chain(line.caption).collect();
    if !captions.is_empty() {
        found.captions = captions;
    }
    found.captions.retain(|caption| !caption.trim().is_empty());
    found.objects = line.objects.map(|objects| objects.into_iter().map(|object| object.category).collect());
    if found.captions.is_empty() && found.objects.is_none() {
        bail!("no caption: expected `captions`, `caption`, or a conversation: {CONVERSATIONS}");
    }
    Ok(found)
}

fn coco(coco: Coco, file: &Path) -> Result<Vec<Captioned>> {
    let names: HashMap<u64, String> =
        coco.categories.into_iter().map(|category| (category.id, category.name)).collect();
    let places: HashMap<u64, usize> = coco.images.iter().enumerate().map(|(place, image)| (image.id, place)).collect();
    let image = |image: CocoImage| Captioned {
        image: image.file_name,
        // A file with categories says all there is, of images without an object, too.
        objects: (!names.is_empty()).then(BTreeSet::new),
        ..Captioned::default()
    };
    let mut images: Vec<Captioned> = coco.images.into_iter().map(image).collect();
    for annotation in coco.annotations {
        let id = annotation.image_id;
        let Some(image) = places.get(&id).map(|&place| &mut images[place]) else {
            bail!("{}: an annotation of image {id}, which is not in `images`", file.display());
        };
        image.captions.extend(annotation.caption);
        if let (Some(objects), Some(category)) = (&mut image.objects, annotation.category_id) {
            let Some(name) = names.get(&category) else {
                bail!("{}: category {category} is not in `categories`", file.display());
            };
            objects.insert(name.clone());
        }
    }
    ensure!(!images.is_empty(), "{}: not one image", file.display());
    Ok(images)
}

/// One of all that have the same key, in the order of the first of each. What an image shows is known of all its items.
fn merge<K: Eq + Hash>(all: Vec<Captioned>, key: impl Fn(&Captioned) -> K) -> Vec<Captioned> {
    let mut objects = HashMap::<String, BTreeSet<String>>::new();
    for one in &all {
        if let Some(more) = &one.objects {
            objects.entry(one.image.clone()).or_default().extend(more.iter().cloned());
        }
    }
    let asked: HashSet<String> =
        all.iter().filter(|one| !one.captions.is_empty()).map(|one| one.image.clone()).collect();
    let mut places = HashMap::<K, usize>::new();
    let mut merged: Vec<Captioned> = Vec::new();
    for mut one in all {
        // Annotations alone are no item where captions of the image are.
        if one.captions.is_empty() && one.fault.is_none() && asked.contains(&one.image) {
            continue;
        }
        match places.entry(key(&one)) {
            Entry::Occupied(place) => merged[*place.get()].captions.append(&mut one.captions),
            Entry::Vacant(place) => {
                place.insert(merged.len());
                one.objects = objects.get(&one.image).cloned();
                merged.push(one);
            }
        }
    }
    merged
}

/// Why an image without a caption cannot be asked about.
pub(super) fn no_caption(image: &Captioned) -> Option<String> {
    let none = || image.captions.is_empty().then(|| "no caption in the data".into());
    image.fault.clone().or_else(none)
}

/// Why an image cannot be compared with captions.
pub(super) fn no_pair(image: &Captioned) -> Option<String> {
    let several = || (!image.more_images.is_empty()).then(|| "several images with one caption".into());
    no_caption(image).or_else(several)
}

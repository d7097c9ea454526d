//! Pictures within the page.

use super::escape;
use crate::report::attention_png::png;
use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{FilterType, resize};
use model::{MAX_IMAGE_FILE, read_file};
use std::path::{Component, Path};

/// Pictures up to this side are kept to the pixel.
const SMALL: u32 = 96;
/// What a picture's file may have in bytes.
/// Of JPEG, in percent.
const QUALITY: u8 = 85;

/// The picture `name` of a run's folder, its longer side `most` pixels at the most; words in its place where it cannot be
/// shown.
pub(super) fn picture(folder: &Path, name: &str, alt: &str, most: u32) -> String {
    match data(folder, name, most) {
        Ok((address, width, height)) => {
            let class = if width.max(height) <= SMALL { " class=\"small\"" } else { "" };
            let alt = escape(alt);
            format!("<img{class} alt=\"{alt}\" width=\"{width}\" height=\"{height}\" src=\"{address}\">")
        }
        Err(error) => format!("<span class=\"absent\">no picture: {}</span>", escape(&format!("{error:#}"))),
    }
}

fn data(folder: &Path, name: &str, most: u32) -> Result<(String, u32, u32)> {
    let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    ensure!(inside, "{name} is not a place in the run's folder");
    let path = folder.join(name);
    let bytes = read_file(&path, MAX_IMAGE_FILE).with_context(|| name.to_string())?;
    let picture = model::decode_image(&bytes).with_context(|| name.to_string())?;
    let (width, height) = picture.dimensions();
    let longer = width.max(height);
    if longer <= SMALL {
        let bytes = png(&picture)?;
        return Ok((address("png", &bytes), width, height));
    }
    let scale = f64::from(most.min(longer)) / f64::from(longer);
    let side = |side: u32| ((f64::from(side) * scale).round() as u32).max(1);
    let (width, height) = (side(width), side(height));
    let mut bytes = Vec::new();
    let scaled = resize(&picture, width, height, FilterType::CatmullRom);
    JpegEncoder::new_with_quality(&mut bytes, QUALITY).encode_image(&scaled)?;
    Ok((address("jpeg", &bytes), width, height))
}

fn address(kind: &str, bytes: &[u8]) -> String {
    format!("data:image/{kind};base64,{}", BASE64_STANDARD.encode(bytes))
}

//! Images on disk: found by name in a folder or a zip, checked, decoded, composited on white.

use anyhow::{Context, Result, anyhow, bail, ensure};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};
use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;
use zip::{CompressionMethod, ZipArchive};

/// The longest side accepted, in pixels.
pub const MAX_SIDE: u32 = 16384;
/// The most memory a decoded image may take, in bytes.
pub const MAX_DECODED: u64 = 256 << 20;
/// The largest image file accepted, in bytes.
const MAX_FILE: u64 = 64 << 20;

/// Where images are.
#[derive(Debug)]
pub struct ImageSource {
    path: PathBuf,
    /// None: `path` is a folder.
    archive: Option<Mutex<ZipArchive<BufReader<File>>>>,
}

impl ImageSource {
    /// A folder, or a zip of stored (not compressed) entries.
    ///
    /// # Errors
    /// When `path` is neither, or cannot be read.
    pub fn open(path: &Path) -> Result<ImageSource> {
        let about = std::fs::metadata(path).with_context(|| format!("{}: cannot be read", path.display()))?;
        let archive = if about.is_dir() {
            None
        } else {
            let file = File::open(path).with_context(|| format!("{}: cannot be read", path.display()))?;
            let archive = ZipArchive::new(BufReader::new(file))
                .with_context(|| format!("{}: neither a folder nor a zip", path.display()))?;
            Some(Mutex::new(archive))
        };
        Ok(ImageSource {
            path: path.to_owned(),
            archive,
        })
    }

    /// The decoded image called `name`, `(height, width)` as in the file.
    ///
    /// # Errors
    /// When the name leaves the source (`..`, absolute), the image is not there, or [`decode`] refuses it.
    pub fn load(&self, name: &str) -> Result<RgbImage> {
        decode(&self.read(name)?).with_context(|| self.describe(name))
    }

    fn describe(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        check_name(name)?;
        let mut bytes = Vec::new();
        match &self.archive {
            None => {
                let file = File::open(self.path.join(name)).with_context(|| self.describe(name))?;
                ensure!(file.metadata()?.is_file(), "{}: not a file", self.describe(name));
                file.take(MAX_FILE + 1)
                    .read_to_end(&mut bytes)
                    .with_context(|| self.describe(name))?;
            }
            Some(archive) => {
                let mut archive = archive
                    .lock()
                    .map_err(|_| anyhow!("{}: reading failed before", self.path.display()))?;
                let entry = archive.by_name(name).with_context(|| self.describe(name))?;
                let method = entry.compression();
                ensure!(
                    method == CompressionMethod::Stored,
                    "{}: compressed ({method}); images gain nothing by it: pack them with `zip -0`",
                    self.describe(name)
                );
                entry
                    .take(MAX_FILE + 1)
                    .read_to_end(&mut bytes)
                    .with_context(|| self.describe(name))?;
            }
        }
        ensure!(
            bytes.len() as u64 <= MAX_FILE,
            "{}: larger than {} MiB",
            self.describe(name),
            MAX_FILE >> 20
        );
        Ok(bytes)
    }
}

/// Fails unless `name` stays within the folder it is relative to.
fn check_name(name: &str) -> Result<()> {
    let inside = Path::new(name)
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    let plain = !name.is_empty() && !name.contains(['\\', '\0']) && !name.starts_with('/');
    let drive = name.as_bytes().get(1) == Some(&b':');
    ensure!(
        inside && plain && !drive,
        "`{}` is not a name within the image folder",
        name.escape_debug()
    );
    Ok(())
}

/// Reads and decodes an image file.
///
/// # Errors
/// Names the file; as [`decode`].
pub fn open(path: &Path) -> Result<RgbImage> {
    let bytes = std::fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    decode(&bytes).with_context(|| path.display().to_string())
}

/// Decodes a PNG, JPEG or WebP; transparency is composited on white.
///
/// # Errors
/// Another format; a truncated file; an image larger than [`MAX_SIDE`] or [`MAX_DECODED`], known from its header before
/// anything is decoded; damaged data.
pub fn decode(bytes: &[u8]) -> Result<RgbImage> {
    let format = image::guess_format(bytes).ok();
    match format {
        Some(ImageFormat::Jpeg) => ensure!(jpeg_ends(bytes), "truncated JPEG: no end-of-image marker"),
        Some(ImageFormat::Png) => ensure!(png_ends(bytes), "truncated PNG: no IEND chunk"),
        Some(ImageFormat::WebP) => ensure!(webp_ends(bytes), "truncated WebP: shorter than its header says"),
        _ => bail!("not a PNG, JPEG or WebP"),
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format.context("no format")?);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_DECODED);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    ensure!(
        width <= MAX_SIDE && height <= MAX_SIDE && decoder.total_bytes() <= MAX_DECODED,
        "{width} x {height} pixels are too many: at most {MAX_SIDE} a side and {} MiB decoded",
        MAX_DECODED >> 20
    );
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    decoder.set_limits(limits)?;
    Ok(on_white(DynamicImage::from_decoder(decoder)?))
}

/// `colour · alpha + white · (1 − alpha)`, rounded to nearest.
fn on_white(image: DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let image = image.into_rgba8();
    RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let [r, g, b, a] = image.get_pixel(x, y).0.map(u32::from);
        let over = |c: u32| ((c * a + 255 * (255 - a) + 127) / 255) as u8;
        image::Rgb([over(r), over(g), over(b)])
    })
}

/// Whether a JPEG reaches its end-of-image marker. Segments are skipped by their length, so the end of a thumbnail
/// within one does not count.
fn jpeg_ends(bytes: &[u8]) -> bool {
    const RESTART: std::ops::RangeInclusive<u8> = 0xd0..=0xd7;
    let mut at = 2;
    while let Some(&[prefix, marker]) = bytes.get(at..at + 2) {
        match (prefix, marker) {
            (0xff, 0xd9) => return true,
            // Entropy-coded data, stuffed zeros, fill bytes and restarts: on to the next byte.
            (0xff, 0x00 | 0xff | 0x01) => at += 1,
            (0xff, _) if RESTART.contains(&marker) => at += 2,
            (0xff, _) => match bytes.get(at + 2..at + 4) {
                Some(&[high, low]) => at += 2 + usize::from(u16::from_be_bytes([high, low])).max(2),
                _ => return false,
            },
            _ => at += 1,
        }
    }
    false
}

/// Whether a PNG's chunks follow each other up to IEND.
fn png_ends(bytes: &[u8]) -> bool {
    let mut at = 8;
    while let Some(head) = bytes.get(at..at + 8) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        at = match at.checked_add(length).and_then(|end| end.checked_add(12)) {
            Some(end) if end <= bytes.len() => end,
            _ => return false,
        };
        if &head[4..] == b"IEND" {
            return true;
        }
    }
    false
}

/// Whether a WebP is as long as its RIFF header says.
fn webp_ends(bytes: &[u8]) -> bool {
    match bytes.get(4..8) {
        Some(&[a, b, c, d]) => bytes.len() as u64 >= 8 + u64::from(u32::from_le_bytes([a, b, c, d])),
        _ => false,
    }
}

#[cfg(test)]
#[path = "images_tests.rs"]
mod tests;

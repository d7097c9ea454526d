//! PNG, JPEG and WebP files as pixels: whole, within limits, turned upright, composited on white.

use super::MAX_SIDE;
use crate::error::{Error, Result, at, input};
use crate::files::{file_kind, read_file};
use ::image::metadata::Orientation;
use ::image::{
    ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader, ImageResult, Limits, Rgb, RgbImage, guess_format,
};
use std::io::Cursor;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The most memory that decoding an image may take, in bytes.
const MAX_DECODED: u64 = 512 << 20;
/// The most pixels of an image: as a camera of a hundred megapixels has them.
const MAX_PIXELS: u64 = 100_000_000;
/// Images that take more bytes than this are decoded one at a time, however many threads there are.
const LARGE: u64 = 128 << 20;

static ONE_LARGE: Mutex<()> = Mutex::new(());

/// The largest image file read, in bytes.
pub const MAX_IMAGE_FILE: u64 = 64 << 20;

/// Reads and decodes an image file.
///
/// # Errors
/// Names the file; as [`decode_image`].
pub fn open_image(path: &Path) -> Result<RgbImage> {
    let bytes = read_file(path, MAX_IMAGE_FILE).map_err(at(path))?;
    decode_image(&bytes).map_err(at(path))
}

/// Decodes a PNG, JPEG or WebP as viewers show it: turned and mirrored as its EXIF (or XMP) orientation says; transparency
/// is composited on white, and grey becomes three equal channels.
///
/// For opaque images of 8 bits this is what `transformers` makes of them (`do_convert_rgb`). It drops transparency instead,
/// so that whatever colour lies behind it appears, and cuts 16-bit greys off at 255, which are scaled here.
///
/// # Errors
/// Another format; a truncated file; an image of more than 16,384 pixels a side or 100 million in all, or one that takes more
/// than 512 MiB to decode, known from its header before anything is decoded; damaged data.
pub fn decode_image(bytes: &[u8]) -> Result<RgbImage> {
    let format = match guess_format(bytes) {
        Ok(ImageFormat::Jpeg) if !jpeg_ends(bytes) => return input(WHAT, "truncated JPEG: no end-of-image marker"),
        Ok(ImageFormat::Png) if !png_ends(bytes) => return input(WHAT, "truncated PNG: no IEND chunk"),
        Ok(ImageFormat::WebP) if !webp_ends(bytes) => {
            return input(WHAT, "truncated WebP: shorter than its header says");
        }
        Ok(format @ (ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP)) => format,
        _ => {
            return match file_kind(bytes) {
                Some(kind) => input(WHAT, format!("{kind}, not a PNG, JPEG or WebP")),
                None => input(WHAT, "not a PNG, JPEG or WebP"),
            };
        }
    };
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_DECODED);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits.clone());
    let mut decoder = damaged(reader.into_decoder())?;
    let (width, height) = decoder.dimensions();
    let orientation = orientation(bytes, &mut decoder);
    let pixels = u64::from(width) * u64::from(height);
    let need = need(&decoder, bytes, orientation);
    if width > MAX_SIDE || height > MAX_SIDE || pixels > MAX_PIXELS || need > MAX_DECODED {
        let most =
            format!("at most {MAX_SIDE} a side, {MAX_PIXELS} in all, and {} MiB to decode them", MAX_DECODED >> 20);
        return input(WHAT, format!("{width} x {height} pixels are too many: {most}; make it smaller"));
    }
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    damaged(decoder.set_limits(limits))?;
    let _turn = (need > LARGE).then(|| ONE_LARGE.lock().unwrap_or_else(PoisonError::into_inner));
    let mut image = damaged(DynamicImage::from_decoder(decoder))?;
    image.apply_orientation(orientation);
    Ok(on_white(image))
}

/// The most bytes that an image takes on its way to RGB: its own pixels, and every copy of them.
fn need(decoder: &impl ImageDecoder, bytes: &[u8], orientation: Orientation) -> u64 {
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    let (own, colour) = (decoder.total_bytes(), decoder.color_type());
    let turned = if orientation == Orientation::NoTransforms { 0 } else { own };
    let rgba = if colour.has_alpha() && colour != ColorType::Rgba8 { 4 * pixels } else { 0 };
    let rgb = if colour == ColorType::Rgb8 { 0 } else { 3 * pixels };
    // A progressive JPEG (its frame starts with FFC2) keeps all coefficients, of two bytes each.
    let progressive = bytes.starts_with(b"\xff\xd8") && bytes.windows(2).any(|marker| marker == b"\xff\xc2");
    let coefficients = if progressive { 2 * own } else { 0 };
    own.saturating_add(turned + rgba + rgb + coefficients)
}

/// How viewers turn the image: by its EXIF, else its XMP; metadata that cannot be read turn nothing.
fn orientation(bytes: &[u8], decoder: &mut impl ImageDecoder) -> Orientation {
    // A PNG's may stand behind the pixels, where its decoder does not look.
    let behind = || Some(png_chunks(bytes).find(|(name, _)| name == b"eXIf")?.1.to_vec());
    let exif = decoder.exif_metadata().ok().flatten().or_else(behind);
    // Some writers keep JPEG's own prefix in PNG and WebP.
    let exif = exif.and_then(|exif| Orientation::from_exif_chunk(exif.strip_prefix(b"Exif\0\0").unwrap_or(&exif)));
    let from_xmp = || {
        let xmp = String::from_utf8_lossy(&decoder.xmp_metadata().ok()??).into_owned();
        let value = xmp.split("tiff:Orientation").nth(1)?;
        let digit = value.trim_start_matches(['=', '"', '\'', '>', ' ']).bytes().next()?;
        Orientation::from_exif(digit.checked_sub(b'0')?)
    };
    exif.or_else(from_xmp).unwrap_or(Orientation::NoTransforms)
}

const WHAT: &str = "image";

fn damaged<T>(result: ImageResult<T>) -> Result<T> {
    result.map_err(|error| Error::Input { what: WHAT, message: error.to_string() })
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
        Rgb([over(r), over(g), over(b)])
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

/// A PNG's chunks by name, as long as they follow each other whole; none of other files.
fn png_chunks(bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = bytes.strip_prefix(b"\x89PNG\r\n\x1a\n").unwrap_or_default();
    std::iter::from_fn(move || {
        let (head, behind) = rest.split_at_checked(8)?;
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let data = behind.get(..length)?;
        // Behind the data are four bytes of checksum.
        rest = behind.get(length.checked_add(4)?..)?;
        Some((&head[4..], data))
    })
}

/// Whether a PNG's chunks follow each other up to IEND.
fn png_ends(bytes: &[u8]) -> bool {
    png_chunks(bytes).any(|(name, _)| name == b"IEND")
}

/// Whether a WebP is as long as its RIFF header says.
fn webp_ends(bytes: &[u8]) -> bool {
    match bytes.get(4..8) {
        Some(&[a, b, c, d]) => bytes.len() as u64 >= 8 + u64::from(u32::from_le_bytes([a, b, c, d])),
        _ => false,
    }
}

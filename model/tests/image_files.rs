//! Image files: whole ones are decoded, others refused by what is wrong with them, and nothing panics.

use image::{DynamicImage, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};
use model::{Result, decode_image, open_image};
use proptest::prelude::*;
use std::io::Cursor;
use std::path::Path;
use std::sync::LazyLock;

const FORMATS: [ImageFormat; 3] = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP];

static PICTURE: LazyLock<RgbImage> =
    LazyLock::new(|| RgbImage::from_fn(23, 17, |x, y| Rgb([(x * 11) as u8, (y * 15) as u8, (x * y) as u8])));
static FILES: LazyLock<Vec<Vec<u8>>> =
    LazyLock::new(|| FORMATS.iter().map(|format| encode(PICTURE.clone().into(), *format)).collect());

fn encode(image: DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn message(result: Result<RgbImage>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn every_format_decodes_and_lossless_ones_exactly() {
    for (bytes, format) in FILES.iter().zip(FORMATS) {
        let image = decode_image(bytes).unwrap();
        assert_eq!(image.dimensions(), (23, 17));
        assert!(format == ImageFormat::Jpeg || image == *PICTURE, "{format:?}");
    }
}

#[test]
fn every_truncation_of_every_format_is_refused() {
    for (bytes, format) in FILES.iter().zip(FORMATS) {
        for length in 0..bytes.len() {
            assert!(decode_image(&bytes[..length]).is_err(), "{format:?} cut to {length} of {}", bytes.len());
        }
    }
    assert!(message(decode_image(&FILES[1][..FILES[1].len() - 1])).contains("truncated JPEG"));
    assert!(message(decode_image(&FILES[0][..FILES[0].len() - 1])).contains("truncated PNG"));
}

#[test]
fn a_thumbnails_end_marker_does_not_hide_a_truncated_jpeg_and_a_tail_does_no_harm() {
    let jpeg = &FILES[1];
    let thumbnail = [0xff, 0xe1, 0x00, 0x06, 0xff, 0xd8, 0xff, 0xd9];
    let mut with_thumbnail = [&jpeg[..2], &thumbnail, &jpeg[2..]].concat();
    assert!(decode_image(&with_thumbnail).is_ok());
    with_thumbnail.truncate(jpeg.len() / 2);
    assert!(message(decode_image(&with_thumbnail)).contains("truncated JPEG"));
    assert!(decode_image(&[jpeg.as_slice(), b"trailing bytes"].concat()).is_ok());
}

/// A PNG whose header claims `width` x `height` RGBA pixels, with hardly any data.
fn png_claiming(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 6, 0, 0, 0]].concat();
    for (name, data) in [(b"IHDR", header.as_slice()), (b"IDAT", &[0x78, 0x9c]), (b"IEND", &[])] {
        let body = [name.as_slice(), data].concat();
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(&body);
        bytes.extend(crc32(&body).to_be_bytes());
    }
    bytes
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| (c >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(c & 1)))
    })
}

#[test]
fn what_cannot_be_read_is_named_by_file() {
    let missing = open_image(Path::new("/nowhere/a.png")).unwrap_err().to_string();
    assert!(missing.contains("/nowhere/a.png"), "{missing}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.jpg");
    std::fs::write(&path, &FILES[1][..200]).unwrap();
    let cut = open_image(&path).unwrap_err().to_string();
    assert!(cut.contains("cut.jpg") && cut.contains("truncated JPEG"), "{cut}");
    assert!(message(decode_image(b"not an image")).contains("not a PNG, JPEG or WebP"));
}

#[test]
fn files_of_other_kinds_are_named() {
    for (bytes, expected) in [
        (&b"GIF89a\x05\0\x05\0"[..], "a GIF, not a PNG, JPEG or WebP"),
        (b"BM\x46\0\0\0", "a BMP, not"),
        (b"II*\0\x08\0\0\0", "a TIFF, not"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "an AVIF, not"),
        (b"<!DOCTYPE html><html>", "an HTML page, not"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"),
        (b"", "an empty file, not"),
    ] {
        let text = message(decode_image(bytes));
        assert!(text.contains(expected), "{text}");
    }
}

/// Chunk or segment of EXIF with this orientation, put into an encoded picture.
fn with_orientation(format: ImageFormat, bytes: &[u8], value: u8, prefix: &[u8]) -> Vec<u8> {
    let exif = [prefix, b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0", &[value, 0, 0, 0, 0, 0, 0, 0]].concat();
    match format {
        ImageFormat::Jpeg => {
            let length = (exif.len() as u16 + 2).to_be_bytes();
            [&bytes[..2], &[0xff, 0xe1], &length, &exif, &bytes[2..]].concat()
        }
        ImageFormat::Png => {
            let body = [b"eXIf", exif.as_slice()].concat();
            let length = (exif.len() as u32).to_be_bytes();
            // The header takes 8 + 25 bytes.
            [&bytes[..33], &length, &body, &crc32(&body).to_be_bytes(), &bytes[33..]].concat()
        }
        _ => {
            let size = [22u32, 16].map(|side| side.to_le_bytes());
            let head = [b"VP8X", &10u32.to_le_bytes()[..], &[8, 0, 0, 0], &size[0][..3], &size[1][..3]].concat();
            let tail = [b"EXIF", &(exif.len() as u32).to_le_bytes()[..], &exif].concat();
            let body = [b"WEBP", head.as_slice(), &bytes[12..], &tail].concat();
            [b"RIFF", &(body.len() as u32).to_le_bytes()[..], &body].concat()
        }
    }
}

/// The eight orientations of EXIF: a turned picture comes out upright, from every format.
#[test]
fn pictures_are_turned_as_exif_says() {
    for (bytes, format) in FILES.iter().zip(FORMATS) {
        let plain = decode_image(bytes).unwrap();
        let turned = |x: u32, y: u32, value: u8| match value {
            2 => (22 - x, y),
            3 => (22 - x, 16 - y),
            4 => (x, 16 - y),
            5 => (y, x),
            6 => (y, 16 - x),
            7 => (22 - y, 16 - x),
            8 => (22 - y, x),
            _ => (x, y),
        };
        for value in 0..=9 {
            for prefix in [&b"Exif\0\0"[..], b""] {
                if format == ImageFormat::Jpeg && prefix.is_empty() {
                    continue;
                }
                let image = decode_image(&with_orientation(format, bytes, value, prefix)).unwrap();
                let (width, height) = if (5..=8).contains(&value) { (17, 23) } else { (23, 17) };
                let expected = RgbImage::from_fn(width, height, |x, y| {
                    let (x, y) = turned(x, y, value);
                    *plain.get_pixel(x, y)
                });
                assert!(image == expected, "{format:?}, orientation {value}, {prefix:?}");
            }
        }
    }
}

#[test]
fn exif_behind_the_pixels_of_a_png_counts() {
    let front = with_orientation(ImageFormat::Png, &FILES[0], 6, b"");
    let chunk = &front[33..front.len() - FILES[0].len() + 33];
    let (pixels, end) = FILES[0].split_at(FILES[0].len() - 12);
    let image = decode_image(&[pixels, chunk, end].concat()).unwrap();
    assert_eq!(image.dimensions(), (17, 23));
}

#[test]
fn pictures_are_turned_as_xmp_says_where_there_is_no_exif() {
    let jpeg = &FILES[1];
    let xmp = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x=\"adobe:ns:meta/\"><rdf:Description tiff:Orientation=\"6\"/></x:xmpmeta>";
    let length = (xmp.len() as u16 + 2).to_be_bytes();
    let bytes = [&jpeg[..2], &[0xff, 0xe1], &length, xmp, &jpeg[2..]].concat();
    assert_eq!(decode_image(&bytes).unwrap().dimensions(), (17, 23));
}

#[test]
fn bombs_are_refused_by_their_header() {
    for (width, height) in [(16385, 1), (1, 16385), (16384, 16384), (9000, 9000)] {
        let text = message(decode_image(&png_claiming(width, height)));
        assert!(text.contains(&format!("{width} x {height} pixels are too many")), "{text}");
    }
    let within = message(decode_image(&png_claiming(8192, 8191)));
    assert!(!within.contains("too many"), "{within}");

    let mut jpeg = FILES[1].clone();
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0x40, 0x00, 0x40, 0x00]);
    assert!(message(decode_image(&jpeg)).contains("16384 x 16384 pixels are too many"));
}

#[test]
fn transparency_is_composited_on_white() {
    let pixels = [(0, 255), (128, 204), (255, 255)].map(|(alpha, red)| ([100, 0, 200, alpha], red));
    let image = RgbaImage::from_fn(3, 1, |x, _| Rgba(pixels[x as usize].0));
    let decoded = decode_image(&encode(image.into(), ImageFormat::Png)).unwrap();
    assert_eq!(decoded.get_pixel(0, 0).0, [255, 255, 255]);
    assert_eq!(decoded.get_pixel(2, 0).0, [100, 0, 200]);
    let half = |c: f64| (c * 128.0 / 255.0 + 255.0 * 127.0 / 255.0).round() as u8;
    assert_eq!(decoded.get_pixel(1, 0).0, [half(100.0), half(0.0), half(200.0)]);
}

proptest! {
    #[test]
    fn damaged_images_never_panic(which in 0usize..3, at in any::<prop::sample::Index>(), with in any::<[u8; 3]>()) {
        let mut bytes = FILES[which].clone();
        let at = at.index(bytes.len() - 3);
        bytes[at..at + 3].copy_from_slice(&with);
        if let Ok(image) = decode_image(&bytes) {
            prop_assert!(u64::from(image.width()) * u64::from(image.height()) * 3 <= 256 << 20);
        }
    }

    #[test]
    fn any_bytes_after_a_signature_never_panic(which in 0usize..3, tail in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_image(&[&FILES[which][..12], &tail].concat());
    }
}

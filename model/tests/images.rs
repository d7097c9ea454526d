//! Images: equal to Pillow in every byte, square in every way, and read with care.

use image::{Rgb, RgbImage};
use model::Resample::{self, Bicubic, Bilinear, Lanczos};
use model::{Fit, ImageProcessor, resize};

/// A pattern with gradients and noise.
fn pattern(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([0, 1, 2]
            .map(|c| (((x * 37 + y * 91 + c * 53 + (x * x * 7 + y * y * 13) * (c + 1)) ^ (x * y * 5)) & 255) as u8))
    })
}

fn fnv1a(bytes: &[u8]) -> u64 {
    let step = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// What Pillow 11.3 gives: sizes from and to, the filter, a hash of all bytes and the first six.
const PILLOW: [([u32; 4], Resample, u64, [u8; 6]); 18] = [
    ([23, 17, 8, 6], Bilinear, 0xfd15a61114175909, [111, 129, 128, 122, 114, 129]),
    ([23, 17, 8, 6], Bicubic, 0xece9f939cb21cd3c, [109, 129, 131, 121, 113, 125]),
    ([23, 17, 8, 6], Lanczos, 0x2e7a1835c13d7d27, [108, 130, 133, 121, 111, 121]),
    ([9, 7, 20, 31], Bilinear, 0xa9ddcd64df66e376, [0, 53, 106, 8, 62, 116]),
    ([9, 7, 20, 31], Bicubic, 0x70ef6523f10a2fda, [0, 35, 83, 0, 44, 104]),
    ([9, 7, 20, 31], Lanczos, 0x43a255f9f84f9f9e, [0, 25, 57, 0, 28, 104]),
    ([64, 48, 48, 48], Bilinear, 0x811b97fb135a9a63, [13, 68, 123, 73, 144, 86]),
    ([64, 48, 48, 48], Bicubic, 0x51004256d7916ec1, [8, 61, 129, 72, 150, 83]),
    ([64, 48, 48, 48], Lanczos, 0xaacb3c265be0d8b2, [6, 55, 138, 73, 155, 80]),
    ([31, 40, 31, 13], Bilinear, 0xbf9dc65d40e8c897, [115, 102, 188, 97, 154, 121]),
    ([31, 40, 31, 13], Bicubic, 0xb0cd31c0a1eb599b, [116, 97, 193, 95, 153, 130]),
    ([31, 40, 31, 13], Lanczos, 0xc609705639b1ab4f, [114, 91, 200, 98, 155, 131]),
    ([50, 3, 7, 3], Bilinear, 0x9197d9c0e1286d9b, [101, 114, 96, 138, 149, 123]),
    ([50, 3, 7, 3], Bicubic, 0xed81a999c6b258a2, [97, 111, 93, 144, 152, 126]),
    ([50, 3, 7, 3], Lanczos, 0xff29e3d7bc5a4dff, [97, 110, 92, 146, 152, 126]),
    ([200, 150, 48, 36], Bilinear, 0xa7a98e33aa99e86c, [119, 123, 127, 129, 116, 144]),
    ([200, 150, 48, 36], Bicubic, 0x0e35b69a81e8d82c, [119, 120, 125, 128, 115, 145]),
    ([200, 150, 48, 36], Lanczos, 0x885ee93a9252b62d, [119, 118, 124, 127, 115, 145]),
];

#[test]
fn resizing_equals_pillow() {
    for ([width, height, to_width, to_height], filter, hash, first) in PILLOW {
        let resized = resize(&pattern(width, height), to_width, to_height, filter);
        assert_eq!(resized.dimensions(), (to_width, to_height));
        let case = format!("{width}×{height} to {to_width}×{to_height}, {filter:?}");
        assert_eq!(resized.as_raw()[..6], first, "{case}");
        assert_eq!(fnv1a(resized.as_raw()), hash, "{case}");
    }
}

#[test]
fn the_same_size_is_the_same_image() {
    assert_eq!(resize(&pattern(5, 4), 5, 4, Bicubic), pattern(5, 4));
}

fn processor(fit: Fit) -> ImageProcessor {
    ImageProcessor {
        size: 10,
        fit,
        image_mean: [0.2, 0.4, 0.6],
        image_std: [0.1, 0.2, 0.4],
        ..ImageProcessor::default()
    }
}

#[test]
fn every_fit_gives_a_square() {
    let image = pattern(40, 20);
    let squashed = processor(Fit::Squash).square(&image).unwrap();
    assert_eq!(squashed, resize(&image, 10, 10, Bicubic));
    let cropped = processor(Fit::Crop).square(&image).unwrap();
    let whole = resize(&image, 20, 10, Bicubic);
    assert!((0..10).all(|x| cropped.get_pixel(x, 3) == whole.get_pixel(x + 5, 3)));
    let padded = processor(Fit::Pad).square(&image).unwrap();
    let whole = resize(&image, 10, 5, Bicubic);
    assert!((0..10).all(|x| padded.get_pixel(x, 2) == whole.get_pixel(x, 0)));
    assert_eq!(*padded.get_pixel(0, 0), Rgb([51, 102, 153]));
    assert_eq!(*padded.get_pixel(0, 9), Rgb([51, 102, 153]));
    for fit in [Fit::Squash, Fit::Crop, Fit::Pad] {
        let thin = processor(fit).square(&pattern(300, 1)).unwrap();
        assert_eq!(thin.dimensions(), (10, 10));
    }
}

#[test]
fn batches_are_normalised_channel_by_channel() {
    let processor = processor(Fit::Squash);
    let images = [RgbImage::from_pixel(10, 10, Rgb([51, 204, 255])), pattern(10, 10)];
    let batch = processor.batch(&images, &engine::Device::cpu(), engine::DType::F32).unwrap();
    assert_eq!(batch.shape()[..], [2, 3, 10, 10]);
    let values = batch.to_vec::<f32>().unwrap();
    for (channel, expected) in [0.0, 2.0, 1.0].into_iter().enumerate() {
        assert!(values[channel * 100..][..100].iter().all(|v| (v - expected).abs() < 1e-6));
    }
    let pixel = images[1].get_pixel(3, 2)[1] as f32;
    assert!((values[300 + 100 + 23] - (pixel / 255.0 - 0.4) / 0.2).abs() < 1e-5);
}

#[test]
fn sizes_beyond_the_limits_are_refused() {
    assert!(processor(Fit::Squash).square(&RgbImage::new(20_000, 1)).is_err());
    assert!(processor(Fit::Squash).square(&RgbImage::new(0, 1)).is_err());
}

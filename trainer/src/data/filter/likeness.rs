//! Near-duplicate images: a 64-bit difference hash finds candidates, small colour copies of both decide.
//!
//! The hash has a bit for each pair of neighbours on a 9 × 8 grey copy: is the left one brighter? Images that were scaled,
//! recompressed or slightly changed differ in a few bits. What has no such differences, such as a flag of horizontal bands,
//! is all zeros, so that hashes alone would call them equal.

use image::RgbImage;
use model::{Resample, resize};
use std::collections::HashMap;

/// The most bits two hashes may differ in: beyond, so many unlike images are candidates that the search is slow.
pub const MAX_HAMMING: u32 = 16;
/// The mean difference of colours, of 255, above which images of like hashes are different ones.
const MAX_DIFFERENCE: u32 = 12;
/// Side of the colour copies.
const SIDE: u32 = 8;

/// What an image is compared by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    hash: u64,
    colours: Box<[u8]>,
}

impl Signature {
    /// Of an image of any size.
    pub fn of(image: &RgbImage) -> Signature {
        let grey = |small: &RgbImage, x, y| {
            let [r, g, b] = small.get_pixel(x, y).0.map(u32::from);
            299 * r + 587 * g + 114 * b
        };
        let small = resize(image, SIDE + 1, SIDE, Resample::Bilinear);
        let mut hash = 0;
        for (x, y) in (0..SIDE).flat_map(|y| (0..SIDE).map(move |x| (x, y))) {
            hash = hash << 1 | u64::from(grey(&small, x, y) > grey(&small, x + 1, y));
        }
        Signature { hash, colours: resize(image, SIDE, SIDE, Resample::Bilinear).into_raw().into() }
    }

    /// Whether two images are near-duplicates, their hashes differing in at most `most` bits.
    pub fn is_like(&self, other: &Signature, most: u32) -> bool {
        if (self.hash ^ other.hash).count_ones() > most {
            return false;
        }
        let pairs = self.colours.iter().zip(&other.colours);
        let sum: u32 = pairs.map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
        sum <= MAX_DIFFERENCE * self.colours.len() as u32
    }
}

/// For each image the first one before it that it is a near-duplicate of and that is none itself.
///
/// Two hashes that differ in at most `most` bits agree in one of `most + 1` parts of their bits, so only images that share
/// such a part are compared.
pub fn twins(signatures: &[Signature], most: u32) -> Vec<Option<usize>> {
    let parts = most + 1;
    let part = |hash: u64, i: u32| {
        let (from, to) = (64 * i / parts, 64 * (i + 1) / parts);
        hash >> from & (u64::MAX >> (64 - (to - from)))
    };
    let mut buckets: HashMap<(u32, u64), Vec<usize>> = HashMap::new();
    let mut twins = Vec::with_capacity(signatures.len());
    for (number, signature) in signatures.iter().enumerate() {
        let places = (0..parts).map(|i| (i, part(signature.hash, i)));
        let near = places.clone().filter_map(|place| buckets.get(&place)).flatten();
        let twin = near.filter(|&&other| signatures[other].is_like(signature, most)).min();
        twins.push(twin.copied());
        if twins[number].is_none() {
            for place in places {
                buckets.entry(place).or_default().push(number);
            }
        }
    }
    twins
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn picture(seed: u32, width: u32) -> RgbImage {
        RgbImage::from_fn(width, width, |x, y| {
            let (x, y) = (8 * x / width, 8 * y / width);
            let value = (x * 7919 + y * 104_729 + seed * 1_299_709).wrapping_mul(2_654_435_761);
            image::Rgb([(value >> 8) as u8, (value >> 16) as u8, (value >> 24) as u8])
        })
    }

    #[test]
    fn scaled_and_slightly_changed_images_are_found_and_others_are_not() {
        let mut changed = picture(1, 64);
        changed.pixels_mut().for_each(|pixel| pixel.0 = pixel.0.map(|c| c.saturating_add(4)));
        let images = [picture(1, 64), picture(2, 64), picture(1, 128), changed, picture(3, 64), picture(2, 80)];
        let signatures: Vec<Signature> = images.iter().map(Signature::of).collect();
        assert_eq!(twins(&signatures, 6), [None, None, Some(0), Some(0), None, Some(1)]);
    }

    #[test]
    fn flat_images_are_told_apart_by_their_colours() {
        let bands = |top: [u8; 3], bottom: [u8; 3]| {
            RgbImage::from_fn(60, 40, |_, y| image::Rgb(if y < 20 { top } else { bottom }))
        };
        let (white, red) = ([255; 3], [220, 20, 60]);
        let signatures = [bands(white, red), bands(red, white), bands(white, [210, 20, 60])].map(|i| Signature::of(&i));
        assert_eq!(twins(&signatures, 0), [None, None, Some(0)]);
    }

    proptest! {
        #[test]
        fn buckets_find_what_comparing_all_pairs_does(
            hashes in proptest::collection::vec(prop_oneof![any::<u64>(), (0u32..64).prop_map(|bit| 1 << bit)], 0..40),
            most in 0..=MAX_HAMMING,
        ) {
            let signature = |hash: &u64| Signature { hash: *hash, colours: Box::new([0; 3]) };
            let signatures: Vec<Signature> = hashes.iter().map(signature).collect();
            let mut expected: Vec<Option<usize>> = Vec::new();
            for (i, one) in signatures.iter().enumerate() {
                expected.push((0..i).find(|&j| expected[j].is_none() && signatures[j].is_like(one, most)));
            }
            prop_assert_eq!(twins(&signatures, most), expected);
        }
    }
}

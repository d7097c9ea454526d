//! Resizing as Pillow does it, to the last bit: what models of the field were trained and measured with.
//!
//! A separable convolution, first along rows, then along columns. When shrinking, the filter's support grows with
//! the ratio (antialiasing). Weights are rounded to fixed point; between the passes values are rounded to 8 bits.
//!
//! That is Pillow 3.3 to 12. Version 13 goes along columns first where a height shrinks more than a width, and the rounding
//! between the passes makes some bytes of those images differ by one or two.

use ::image::{Rgb, RgbImage};
use std::f64::consts::PI;
use std::ops::Range;

/// Fraction bits of a weight: 8 for the value and 2 for overshoot leave these of 32.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// A resampling filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Resample {
    /// The pixel that lies there; no antialiasing.
    Nearest,
    /// A triangle.
    Bilinear,
    /// Keys' cubic with a = −½ (Keys 1981).
    #[default]
    Bicubic,
    /// A sinc windowed by a sinc three times as wide.
    Lanczos,
}

impl Resample {
    /// Half the filter's width, in source pixels at ratio 1.
    fn support(self) -> f64 {
        match self {
            Resample::Nearest => 0.0,
            Resample::Bilinear => 1.0,
            Resample::Bicubic => 2.0,
            Resample::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let d = x.abs();
        match self {
            Resample::Bilinear if d < 1.0 => 1.0 - d,
            Resample::Bicubic if d < 1.0 => ((A + 2.0) * d - (A + 3.0)) * d * d + 1.0,
            Resample::Bicubic if d < 2.0 => (((d - 5.0) * d + 8.0) * d - 4.0) * A,
            Resample::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            _ => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) }
}

/// What one pixel of the result is made of: `weights` of the source pixels from `first` on.
struct Window {
    first: usize,
    weights: Vec<i32>,
}

/// The windows of some of the `to` pixels that `from` become.
fn windows(from: u32, to: u32, filter: Resample, some: Range<u32>) -> Vec<Window> {
    if filter == Resample::Nearest {
        return nearest(from, to, some);
    }
    let from_pixels = from as usize;
    let scale = f64::from(from) / f64::from(to);
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let window = |i: u32| {
        let centre = (f64::from(i) + 0.5) * scale;
        let first = (centre - support + 0.5).max(0.0) as usize;
        let end = ((centre + support + 0.5) as usize).min(from_pixels);
        // Pillow multiplies by the reciprocal.
        let inverse = 1.0 / stretch;
        let raw: Vec<f64> = (first..end).map(|x| filter.weight((x as f64 - centre + 0.5) * inverse)).collect();
        let sum: f64 = raw.iter().sum();
        let fixed = |w: &f64| {
            let w = if sum != 0.0 { w / sum } else { *w };
            // Halves away from zero: the cast truncates.
            (w * f64::from(1u32 << PRECISION_BITS) + 0.5f64.copysign(w)) as i32
        };
        Window { first, weights: raw.iter().map(fixed).collect() }
    };
    some.map(window).collect()
}

/// Pillow adds step by step, and its rounding errors with it.
fn nearest(from: u32, to: u32, some: Range<u32>) -> Vec<Window> {
    let step = f64::from(from) / f64::from(to);
    let places = std::iter::successors(Some(step * 0.5), |place| Some(place + step));
    let window =
        |place: f64| Window { first: (place as usize).min(from as usize - 1), weights: vec![1 << PRECISION_BITS] };
    let some = some.start as usize..some.end as usize;
    places.skip(some.start).take(some.len()).map(window).collect()
}

/// An image on a background that is never painted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Canvas<'i> {
    pub(super) image: &'i RgbImage,
    /// Width and height of all of it.
    pub(super) size: [u32; 2],
    /// Where the image's corner lies on it: from the left and the top.
    pub(super) at: [u32; 2],
    pub(super) background: Rgb<u8>,
}

impl<'i> Canvas<'i> {
    /// The image itself.
    pub(super) fn of(image: &'i RgbImage) -> Canvas<'i> {
        Canvas { image, size: image.dimensions().into(), at: [0; 2], background: Rgb([0; 3]) }
    }

    fn pixel(&self, x: u32, y: u32) -> Rgb<u8> {
        let [left, top] = self.at;
        if x < left || y < top {
            return self.background;
        }
        match self.image.get_pixel_checked(x - left, y - top) {
            Some(pixel) => *pixel,
            None => self.background,
        }
    }

    /// Columns and rows of what the canvas is when it is resized to `size`; nothing else of that is computed.
    pub(super) fn resized(&self, size: [u32; 2], filter: Resample, [columns, rows]: [Range<u32>; 2]) -> RgbImage {
        let (width, height) = (columns.end - columns.start, rows.end - rows.start);
        // All rows are needed where they are mixed next, else just those.
        let mixed = size[1] != self.size[1];
        let source = if mixed { 0..self.size[1] } else { rows.clone() };
        let tall = source.end - source.start;
        let wide = if size[0] == self.size[0] {
            RgbImage::from_fn(width, tall, |x, y| self.pixel(columns.start + x, source.start + y))
        } else {
            let windows = windows(self.size[0], size[0], filter, columns);
            RgbImage::from_fn(width, tall, |x, y| mix(&windows[x as usize], |x| self.pixel(x, source.start + y)))
        };
        if !mixed {
            return wide;
        }
        let windows = windows(self.size[1], size[1], filter, rows);
        RgbImage::from_fn(width, height, |x, y| mix(&windows[y as usize], |y| *wide.get_pixel(x, y)))
    }
}

/// The image at `width` × `height`, equal to Pillow's `Image.resize` for RGB images in every byte.
pub fn resize(image: &RgbImage, width: u32, height: u32, filter: Resample) -> RgbImage {
    Canvas::of(image).resized([width, height], filter, [0..width, 0..height])
}

fn mix(window: &Window, pixel: impl Fn(u32) -> Rgb<u8>) -> Rgb<u8> {
    let mut sums = [1i32 << (PRECISION_BITS - 1); 3];
    for (i, weight) in window.weights.iter().enumerate() {
        let pixel = pixel((window.first + i) as u32);
        for (sum, channel) in sums.iter_mut().zip(pixel.0) {
            *sum += i32::from(channel) * weight;
        }
    }
    Rgb(sums.map(|sum| (sum >> PRECISION_BITS).clamp(0, 255) as u8))
}

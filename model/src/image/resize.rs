//! Resizing as Pillow does it, to the last bit: what models of the field were trained and measured with.
//!
//! A separable convolution, first along rows, then along columns. When shrinking, the filter's support grows with
//! the ratio (antialiasing). Weights are rounded to fixed point; between the passes values are rounded to 8 bits.

use ::image::RgbImage;
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// Fraction bits of a weight: 8 for the value and 2 for overshoot leave these of 32.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// A resampling filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resample {
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

fn windows(from: usize, to: usize, filter: Resample) -> Vec<Window> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let window = |i: usize| {
        let centre = (i as f64 + 0.5) * scale;
        let first = (centre - support + 0.5).max(0.0) as usize;
        let end = ((centre + support + 0.5) as usize).min(from);
        // Pillow multiplies by the reciprocal.
        let inverse = 1.0 / stretch;
        let raw: Vec<f64> = (first..end)
            .map(|x| filter.weight((x as f64 - centre + 0.5) * inverse))
            .collect();
        let sum: f64 = raw.iter().sum();
        let fixed = |w: &f64| {
            let w = if sum != 0.0 { w / sum } else { *w };
            // Halves away from zero: the cast truncates.
            (w * f64::from(1u32 << PRECISION_BITS) + 0.5f64.copysign(w)) as i32
        };
        Window {
            first,
            weights: raw.iter().map(fixed).collect(),
        }
    };
    (0..to).map(window).collect()
}

/// The image at `width` × `height`, equal to Pillow's `Image.resize` for RGB images in every byte.
pub fn resize(image: &RgbImage, width: u32, height: u32, filter: Resample) -> RgbImage {
    let (from_width, from_height) = image.dimensions();
    let mut current = image.clone();
    if width != from_width {
        let windows = windows(from_width as usize, width as usize, filter);
        current = RgbImage::from_fn(width, from_height, |x, y| {
            mix(&windows[x as usize], |x| *current.get_pixel(x, y))
        });
    }
    if height != from_height {
        let windows = windows(from_height as usize, height as usize, filter);
        current = RgbImage::from_fn(width, height, |x, y| {
            mix(&windows[y as usize], |y| *current.get_pixel(x, y))
        });
    }
    current
}

fn mix(window: &Window, pixel: impl Fn(u32) -> image::Rgb<u8>) -> image::Rgb<u8> {
    let mut sums = [1i32 << (PRECISION_BITS - 1); 3];
    for (i, weight) in window.weights.iter().enumerate() {
        let pixel = pixel((window.first + i) as u32);
        for (sum, channel) in sums.iter_mut().zip(pixel.0) {
            *sum += i32::from(channel) * weight;
        }
    }
    image::Rgb(sums.map(|sum| (sum >> PRECISION_BITS).clamp(0, 255) as u8))
}

//! A small canvas on which shapes are painted with soft edges, from their signed distances.

use crate::data::scenes::quantise;
use image::RgbImage;

/// A point or a vector, in pixels.
pub(super) type Point = [f32; 2];

/// Colours from 0 to 1, one per pixel.
pub(super) struct Canvas {
    side: usize,
    pixels: Vec<[f32; 3]>,
}

impl Canvas {
    /// A square of one colour.
    pub(super) fn new(side: usize, background: [f32; 3]) -> Canvas {
        Canvas { side, pixels: vec![background; side * side] }
    }

    /// Paints all points whose signed distance to the outline, in pixels, is negative; a pixel is covered by one half on the
    /// outline, and not at all or wholly half a pixel away.
    pub(super) fn paint(&mut self, colour: [f32; 3], distance: impl Fn(Point) -> f32) {
        for (place, pixel) in self.pixels.iter_mut().enumerate() {
            let centre = [(place % self.side) as f32 + 0.5, (place / self.side) as f32 + 0.5];
            let covered = (0.5 - distance(centre)).clamp(0.0, 1.0);
            for (below, own) in pixel.iter_mut().zip(colour) {
                *below += covered * (own - *below);
            }
        }
    }

    /// The image, with noise of this standard deviation on every channel.
    pub(super) fn image(self, noise: f32, seed: u64) -> RgbImage {
        let (side, bytes) = (self.side as u32, quantise(self.pixels.as_flattened(), noise, seed));
        RgbImage::from_raw(side, side, bytes).expect("three bytes for every pixel")
    }
}

/// The distance to a line through these points that is `width` wide and has round ends.
pub(super) fn stroke(points: &[Point], width: f32, at: Point) -> f32 {
    let segments = points.windows(2).map(|ends| to_segment(ends[0], ends[1], at));
    segments.fold(f32::MAX, f32::min) - width / 2.0
}

fn to_segment(a: Point, b: Point, at: Point) -> f32 {
    let (along, from) = ([b[0] - a[0], b[1] - a[1]], [at[0] - a[0], at[1] - a[1]]);
    let length = along[0] * along[0] + along[1] * along[1];
    let share = ((from[0] * along[0] + from[1] * along[1]) / length.max(1e-9)).clamp(0.0, 1.0);
    (from[0] - share * along[0]).hypot(from[1] - share * along[1])
}

/// The distance to a convex polygon whose corners go round clockwise as seen on the image; outside near a corner it is less
/// than the true one, which only keeps the corner sharp.
pub(super) fn polygon(corners: &[Point], at: Point) -> f32 {
    let next = corners.iter().cycle().skip(1);
    let edges = corners.iter().zip(next).map(|(a, b)| {
        let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
        ((at[0] - a[0]) * dy - (at[1] - a[1]) * dx) / dx.hypot(dy).max(1e-9)
    });
    edges.fold(f32::MIN, f32::max)
}

/// The distance to a box from its upper left to its lower right corner.
pub(super) fn rectangle([left, top]: Point, [right, bottom]: Point, at: Point) -> f32 {
    polygon(&[[left, top], [right, top], [right, bottom], [left, bottom]], at)
}

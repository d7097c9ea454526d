//! Turning a scene into pixels.

use image::RgbImage;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::scene::{Object, Scene};

/// Width of the dark rim inside every shape, in image sides. It is what shows which of two objects is in front.
const RIM: f32 = 0.018;
/// Brightness of the rim, relative to the inside.
const RIM_SHADE: f32 = 0.2;
/// Standard deviation of the noise on every channel of every pixel, for brightness in `0..=1`.
const NOISE: f32 = 0.02;

impl Scene {
    /// Draws the scene at `size` by `size` pixels.
    pub fn render(&self, size: u32) -> RgbImage {
        let mut canvas = vec![[self.background; 3]; (size * size) as usize];
        for object in &self.objects {
            paint(object, &mut canvas, size as usize);
        }
        let bytes = quantise(canvas.as_flattened(), NOISE, self.noise_seed);
        RgbImage::from_raw(size, size, bytes).expect("three bytes for every pixel")
    }
}

/// Blends an object over the canvas. How much of a pixel a shape covers follows from the distance between the pixel's
/// centre and the outline: one half on it, none or all from half a pixel away.
fn paint(object: &Object, canvas: &mut [[f32; 3]], size: usize) {
    let scale = size as f32;
    let reach = object.reach() + 1.0 / scale;
    let range = |centre: f32| {
        let pixel = |edge: f32| ((edge * scale).max(0.0) as usize).min(size);
        pixel(centre - reach)..pixel(centre + reach + 1.0 / scale)
    };
    for row in range(object.y) {
        let dy = (row as f32 + 0.5) / scale - object.y;
        for column in range(object.x) {
            let dx = (column as f32 + 0.5) / scale - object.x;
            let distance = object.distance(dx, dy);
            let coverage = |distance: f32| (0.5 - distance * scale).clamp(0.0, 1.0);
            let (shape, inside) = (coverage(distance), coverage(distance + RIM));
            let shade = RIM_SHADE + (1.0 - RIM_SHADE) * inside;
            for (below, own) in canvas[row * size + column].iter_mut().zip(object.rgb) {
                *below += shape * (own * shade - *below);
            }
        }
    }
}

/// Adds noise of this standard deviation and rounds to bytes.
pub(in crate::data) fn quantise(values: &[f32], noise: f32, noise_seed: u64) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(noise_seed);
    let mut random = vec![0u8; values.len() * 4];
    rng.fill_bytes(&mut random);
    // The sum of four uniform bytes is close to normal, with mean 510 and variance 4 (256^2 - 1) / 12.
    const MEAN: f32 = 510.0;
    const DEVIATION: f32 = 147.8;
    let normal = random
        .as_chunks::<4>()
        .0
        .iter()
        .map(|&[a, b, c, d]| f32::from(u16::from(a) + u16::from(b) + u16::from(c) + u16::from(d)) - MEAN);
    let scale = 255.0 * noise / DEVIATION;
    // Adding one half before truncating rounds, and the cast saturates.
    values.iter().zip(normal).map(|(value, normal)| (value * 255.0 + normal * scale + 0.5) as u8).collect()
}

//! Where the model looked: patch weights as a heat map over the picture.

use anyhow::{Result, ensure};
use image::imageops::{FilterType, resize};
use image::{ImageFormat, Rgb, RgbImage};
use std::io::Cursor;

/// The shorter side of a panel is at least this, in pixels.
const PANEL: u32 = 288;
/// Pixels between the two panels.
const GAP: u32 = 8;
/// Dark to bright and evenly readable, black to yellow through purple and red (after matplotlib's inferno).
const COLOURS: [[f32; 3]; 5] =
    [[0.0, 0.0, 4.0], [87.0, 16.0, 110.0], [188.0, 55.0, 84.0], [249.0, 142.0, 9.0], [252.0, 255.0, 164.0]];

/// The picture beside itself under a heat map of `weights`, `(rows, columns)` in reading order; the largest weight is
/// the brightest.
///
/// # Errors
/// When the weights are not `rows · columns` finite numbers of at least 0, or the picture is empty.
pub fn side_by_side(picture: &RgbImage, weights: &[f32], rows: usize, columns: usize) -> Result<RgbImage> {
    ensure!(
        rows * columns == weights.len() && !weights.is_empty(),
        "{} weights for {rows} x {columns} patches",
        weights.len()
    );
    ensure!(weights.iter().all(|w| w.is_finite() && *w >= 0.0), "a patch weight is negative or not a number");
    let (width, height) = picture.dimensions();
    ensure!(width > 0 && height > 0, "the picture is empty");
    let scale = PANEL.div_ceil(width.min(height));
    let (w, h) = (width * scale, height * scale);
    let large = resize(picture, w, h, FilterType::Nearest);
    let largest = weights.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    let mut page = RgbImage::from_pixel(2 * w + GAP, h, Rgb([255; 3]));
    for (x, y, pixel) in large.enumerate_pixels() {
        page.put_pixel(x, y, *pixel);
        let row = (y as f32 + 0.5) / h as f32 * rows as f32 - 0.5;
        let column = (x as f32 + 0.5) / w as f32 * columns as f32 - 0.5;
        let heat = bilinear(weights, rows, columns, row, column) / largest;
        page.put_pixel(x + w + GAP, y, blend(*pixel, heat));
    }
    Ok(page)
}

/// Images of one height in a row; a single one stays as it is.
pub fn in_a_row(images: &[RgbImage]) -> RgbImage {
    if let [single] = images {
        return single.clone();
    }
    let width: u32 = images.iter().map(|image| image.width() + GAP).sum();
    let height = images.iter().map(RgbImage::height).max().unwrap_or(0);
    let mut page = RgbImage::from_pixel(width.saturating_sub(GAP), height, Rgb([255; 3]));
    let mut left = 0;
    for image in images {
        for (x, y, pixel) in image.enumerate_pixels() {
            page.put_pixel(left + x, y, *pixel);
        }
        left += image.width() + GAP;
    }
    page
}

/// An image as the bytes of a PNG file.
pub fn png(image: &RgbImage) -> Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png)?;
    Ok(bytes.into_inner())
}

/// The weight at a fractional place, the outermost patches reaching to the edge.
fn bilinear(weights: &[f32], rows: usize, columns: usize, row: f32, column: f32) -> f32 {
    let (row, column) = (row.clamp(0.0, (rows - 1) as f32), column.clamp(0.0, (columns - 1) as f32));
    let (r, c) = (row as usize, column as usize);
    let (fr, fc) = (row - r as f32, column - c as f32);
    let at = |r: usize, c: usize| weights[r.min(rows - 1) * columns + c.min(columns - 1)];
    let top = at(r, c) * (1.0 - fc) + at(r, c + 1) * fc;
    let bottom = at(r + 1, c) * (1.0 - fc) + at(r + 1, c + 1) * fc;
    top * (1.0 - fr) + bottom * fr
}

/// Heat over a pixel: the picture stays recognisable where the model does not look and where it does.
fn blend(pixel: Rgb<u8>, heat: f32) -> Rgb<u8> {
    let place = heat.clamp(0.0, 1.0) * (COLOURS.len() - 1) as f32;
    let low = (place as usize).min(COLOURS.len() - 2);
    let part = place - low as f32;
    let mut mixed = [0; 3];
    for channel in 0..3 {
        let colour = COLOURS[low][channel] * (1.0 - part) + COLOURS[low + 1][channel] * part;
        mixed[channel] = (0.4 * f32::from(pixel[channel]) + 0.6 * colour).round() as u8;
    }
    Rgb(mixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brightest_place_is_the_patch_with_the_largest_weight() {
        let picture = RgbImage::from_pixel(48, 48, Rgb([90, 90, 90]));
        let mut weights = vec![0.01; 6 * 4];
        weights[4 * 4 + 1] = 0.5;
        let page = side_by_side(&picture, &weights, 6, 4).unwrap();
        assert_eq!(page.dimensions(), (2 * 288 + 8, 288));
        assert_eq!(page.get_pixel(10, 10).0, [90, 90, 90]);
        let light = |p: &Rgb<u8>| p.0.iter().map(|c| u32::from(*c)).sum::<u32>();
        let right = page.enumerate_pixels().filter(|(x, ..)| *x >= 296);
        let (x, y, _) = right.max_by_key(|(_, _, pixel)| light(pixel)).unwrap();
        assert_eq!(((y * 6 / 288), ((x - 296) * 4 / 288)), (4, 1));
    }

    #[test]
    fn halfway_between_two_patches_is_their_mean_and_beyond_the_edge_is_the_edge() {
        let weights = [0.0, 1.0, 2.0, 4.0];
        assert_eq!(bilinear(&weights, 2, 2, 0.5, 0.5), 1.75);
        assert_eq!(bilinear(&weights, 2, 2, -0.5, 9.0), 1.0);
    }

    #[test]
    fn weights_that_do_not_fit_are_errors() {
        let picture = RgbImage::new(4, 4);
        let cases = [
            (&picture, vec![1.0; 3]),
            (&picture, vec![f32::NAN; 4]),
            (&picture, vec![-1.0; 4]),
            (&RgbImage::new(0, 4), vec![1.0; 4]),
        ];
        for (picture, weights) in cases {
            assert!(side_by_side(picture, &weights, 2, 2).is_err(), "{weights:?}");
        }
        assert!(side_by_side(&picture, &[0.0; 4], 2, 2).is_ok(), "nothing looked at is no error");
    }

    #[test]
    fn the_file_reads_back() {
        let page = side_by_side(&RgbImage::from_pixel(300, 290, Rgb([9, 8, 7])), &[1.0], 1, 1).unwrap();
        assert_eq!(model::decode_image(&png(&page).unwrap()).unwrap(), page);
    }
}

//! Bytes of images as numbers, against the plain formula.

mod common;

use common::*;
use kernels::pixels::*;
use kernels::{DType, Error};

const MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
const DEVIATION: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];

fn rule(area: usize) -> Normalise {
    Normalise { area, mean: MEAN, deviation: DEVIATION }
}

#[test]
fn every_byte_of_every_colour() {
    for (images, area) in [(0, 0), (0, 4), (1, 1), (3, 35), (2, 256)] {
        let bytes: Vec<f64> = (0..images * area * 3).map(|i| (i * 7 % 256) as f64).collect();
        for dtype in TYPES {
            let mut out = Array::out(dtype, bytes.len());
            normalise(&rule(area), Array::new(DType::U8, &bytes).view(), &mut out.view_mut()).unwrap();
            let exact = |i: usize| {
                let (image, colour, pixel) = (i / (3 * area), i / area % 3, i % area);
                (bytes[(image * area + pixel) * 3 + colour] / 255.0 - MEAN[colour]) / DEVIATION[colour]
            };
            let exact: Vec<f64> = (0..bytes.len()).map(exact).collect();
            // bf16 is rounded from f32.
            let acc = rounded(dtype.accumulator(), &exact);
            assert_eq!(out.values(), rounded(dtype, &acc), "{dtype}, {images} of {area}");
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let bytes = Array::new(DType::U8, &[1.0; 12]);
    let mut out = Array::out(DType::F32, 12);
    for area in [0, 3, 5] {
        let error = normalise(&rule(area), bytes.view(), &mut out.view_mut()).unwrap_err();
        assert!(matches!(error, Error::Value { .. }), "{error}");
        assert!(error.to_string().contains(&format!("{area} pixels")), "{error}");
    }
    let mut large = Array::out(DType::F32, 24);
    let error = normalise(&rule(4), bytes.view(), &mut large.view_mut()).unwrap_err();
    assert!(matches!(error, Error::Length { what: "bytes", .. }), "{error}");
    let floats = Array::new(DType::F32, &[1.0; 12]);
    let error = normalise(&rule(4), floats.view(), &mut out.view_mut()).unwrap_err();
    assert!(matches!(error, Error::Type { what: "bytes", .. }), "{error}");
}

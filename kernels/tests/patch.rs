//! Patches against their index formula.

use half::bf16;
use kernels::cpu::simd::Real;
use kernels::patch::{Patches, fold, unfold};
use kernels::{Buffer, DType, Device, Element, Error, View, ViewMut};

fn buffer<T: bytemuck::Pod>(x: &[T]) -> Buffer {
    let mut buffer = Device::cpu().allocate(size_of_val(x)).unwrap();
    buffer.bytes_mut()[..size_of_val(x)].copy_from_slice(bytemuck::cast_slice(x));
    buffer
}

fn ramp<T: Element>(len: usize) -> Vec<T> {
    (0..len).map(|i| T::narrow(T::Acc::of(i as f64 + 1.0))).collect()
}

fn sizes(p: Patches) -> (usize, usize) {
    let patches = (p.height / p.patch) * (p.width / p.patch);
    (p.batch * p.channels * p.height * p.width, p.batch * patches * p.channels * p.window() * p.window())
}

/// For each element of `patches`, its place in the image, if it has one.
fn places(p: Patches) -> Vec<Option<usize>> {
    let (rows, columns, side) = (p.height / p.patch, p.width / p.patch, p.window());
    let mut places = Vec::new();
    for b in 0..p.batch {
        for patch in 0..rows * columns {
            for c in 0..p.channels {
                for pixel in 0..side * side {
                    let y = (patch / columns * p.patch + pixel / side) as i64 - p.margin as i64;
                    let x = (patch % columns * p.patch + pixel % side) as i64 - p.margin as i64;
                    let inside = (0..p.height as i64).contains(&y) && (0..p.width as i64).contains(&x);
                    let line = (b * p.channels + c) * p.height;
                    places.push(inside.then(|| (line + y as usize) * p.width + x as usize));
                }
            }
        }
    }
    places
}

fn check<T: Element + PartialEq>(p: Patches) {
    let (whole, cut) = sizes(p);
    let number = |x: f64| T::narrow(T::Acc::of(x));
    let (places, nan, zero) = (places(p), number(f64::NAN), number(0.0));
    let image = ramp::<T>(whole);
    let (source, mut out) = (buffer(&image), buffer(&vec![nan; cut]));
    unfold(p, View::new(&source, T::DTYPE, 0, whole), &mut ViewMut::new(&mut out, T::DTYPE, 0, cut)).unwrap();
    let expected: Vec<T> = places.iter().map(|at| at.map_or(zero, |at| image[at])).collect();
    assert_eq!(View::new(&out, T::DTYPE, 0, cut).slice::<T>(), expected, "{p:?}");

    let patches = ramp::<T>(cut);
    let (source, mut out) = (buffer(&patches), buffer(&vec![nan; whole]));
    fold(p, View::new(&source, T::DTYPE, 0, cut), &mut ViewMut::new(&mut out, T::DTYPE, 0, whole)).unwrap();
    let mut sums = vec![0.0; whole];
    for (at, x) in places.iter().zip(&patches) {
        if let Some(at) = at {
            sums[*at] += x.widen().f64();
        }
    }
    let expected: Vec<T> = sums.into_iter().map(number).collect();
    assert_eq!(View::new(&out, T::DTYPE, 0, whole).slice::<T>(), expected, "{p:?}");
}

fn shapes() -> [Patches; 6] {
    let plain = |batch, channels, height, width, patch| Patches { batch, channels, height, width, patch, margin: 0 };
    [
        plain(2, 3, 28, 42, 14),
        plain(1, 1, 5, 7, 1),
        plain(3, 2, 17, 10, 4),
        plain(1, 3, 3, 9, 4),
        Patches { margin: 2, ..plain(2, 3, 12, 16, 4) },
        Patches { margin: 5, ..plain(1, 2, 11, 9, 3) },
    ]
}

#[test]
fn patches_come_from_and_go_to_their_places() {
    for p in shapes() {
        check::<f32>(p);
        check::<bf16>(p);
        check::<f64>(p);
    }
}

#[test]
fn wrong_sizes_are_refused() {
    let p = shapes()[0];
    let (whole, cut) = sizes(p);
    let (image, mut out) = (buffer(&ramp::<f32>(whole)), buffer(&ramp::<f32>(cut)));
    let image = View::new(&image, DType::F32, 0, whole);
    let mut call = |p, len| unfold(p, image, &mut ViewMut::new(&mut out, DType::F32, 0, len));
    assert!(matches!(call(p, cut - 1), Err(Error::Length { what: "patches", .. })));
    assert!(matches!(call(Patches { batch: 3, ..p }, cut), Err(Error::Length { what: "image", .. })));
    assert!(matches!(call(Patches { patch: 0, ..p }, cut), Err(Error::Value { .. })));
}

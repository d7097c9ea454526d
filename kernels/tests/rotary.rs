//! Rotary embedding against plain double-precision arithmetic.

use half::bf16;
use kernels::cpu::simd::{Isa, Real, set_isa};
use kernels::rotary::rotary;
use kernels::{Buffer, DType, Device, Element, Stored, View, ViewMut};
use std::sync::Mutex;

/// Held by tests that choose the instruction set or compare bits.
static ISA: Mutex<()> = Mutex::new(());

fn buffer<T: bytemuck::Pod>(x: &[T]) -> Buffer {
    let mut buffer = Device::cpu().allocate(size_of_val(x)).unwrap();
    buffer.bytes_mut()[..size_of_val(x)].copy_from_slice(bytemuck::cast_slice(x));
    buffer
}

fn values<T: Element>(x: &[f64]) -> Vec<T> {
    x.iter().map(|&x| T::narrow(T::Acc::of(x))).collect()
}

/// Numbers in −1..1 without a pattern a rotation could share.
fn input(len: usize) -> Vec<f64> {
    (0..len).map(|i| (i as f64 * 12.9898).sin()).collect()
}

fn frequencies(half: usize) -> Vec<f64> {
    (0..half).map(|i| 10_000f64.powf(-(i as f64) / half as f64)).collect()
}

struct Shape {
    positions: Vec<i32>,
    heads: usize,
    dim: usize,
}

fn run<T: Element>(shape: &Shape, x: &[T], inverse: bool) -> Vec<T> {
    let freq: Vec<T::Acc> = frequencies(shape.dim / 2).iter().map(|&f| T::Acc::of(f)).collect();
    let (x_buffer, positions, freq_buffer) = (buffer(x), buffer(&shape.positions), buffer(&freq));
    let mut y = buffer(&vec![T::narrow(T::Acc::of(f64::NAN)); x.len()]);
    rotary(
        View::new(&x_buffer, T::DTYPE, 0, x.len()),
        View::new(&positions, DType::I32, 0, shape.positions.len()),
        View::new(&freq_buffer, T::Acc::DTYPE, 0, freq.len()),
        &mut ViewMut::new(&mut y, T::DTYPE, 0, x.len()),
        shape.heads,
        inverse,
    )
    .unwrap();
    View::new(&y, T::DTYPE, 0, x.len()).slice::<T>().to_vec()
}

fn expected(shape: &Shape, x: &[f64], inverse: bool) -> Vec<f64> {
    let (half, token) = (shape.dim / 2, shape.heads * shape.dim);
    let freq = frequencies(half);
    let element = |at: usize| {
        let (position, i) = (shape.positions[at / token], at % shape.dim);
        let angle = position as f64 * freq[i % half] * if inverse { -1.0 } else { 1.0 };
        match i < half {
            true => x[at] * angle.cos() - x[at + half] * angle.sin(),
            false => x[at] * angle.cos() + x[at - half] * angle.sin(),
        }
    };
    (0..x.len()).map(element).collect()
}

fn shapes() -> Vec<Shape> {
    let dense = |sequences: i32, tokens: i32| (0..sequences).flat_map(|_| 0..tokens).collect();
    let shape = |positions, heads, dim| Shape { positions, heads, dim };
    vec![
        shape(dense(2, 73), 5, 92),
        shape(dense(3, 300), 4, 32),
        shape((100..117).collect(), 8, 128),
        shape(vec![7, -3, 1000, 7, 0, 512], 3, 40),
        shape(vec![], 3, 8),
        shape(dense(1, 5), 1, 2),
    ]
}

fn check<T: Element>(shape: &Shape, tolerance: f64)
where
    f64: From<T>,
{
    let x = values::<T>(&input(shape.positions.len() * shape.heads * shape.dim));
    let exact: Vec<f64> = x.iter().map(|&x| x.into()).collect();
    for inverse in [false, true] {
        let y = run(shape, &x, inverse);
        for (i, (y, e)) in y.iter().zip(expected(shape, &exact, inverse)).enumerate() {
            let y: f64 = (*y).into();
            assert!((y - e).abs() <= tolerance, "{i}: {y}, expected {e}, inverse {inverse}");
        }
    }
}

/// Single precision: an angle up to 1000 rounds at 3e-5, the rest at 1e-7; below 300 at 1.5e-5. bf16 rounds results
/// up to √2 at half of 2⁻⁷.
#[test]
fn rotation_follows_the_formula_on_every_instruction_set() {
    let _guard = ISA.lock().unwrap();
    for isa in [Isa::Portable, Isa::Avx2, Isa::Avx512Bf16] {
        set_isa(isa);
        for shape in shapes() {
            let farthest = shape.positions.iter().map(|p| p.abs()).max().unwrap_or(0) as f64;
            check::<f64>(&shape, 1e-12);
            check::<f32>(&shape, 2e-7 + 6e-8 * farthest);
            check::<bf16>(&shape, 1.0 / 256.0 + 6e-8 * farthest);
        }
    }
}

#[test]
fn the_inverse_undoes_the_rotation() {
    for shape in shapes() {
        let x = input(shape.positions.len() * shape.heads * shape.dim);
        let back = run(&shape, &run(&shape, &x, false), true);
        assert!(x.iter().zip(&back).all(|(x, b)| (x - b).abs() < 1e-14));
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let _guard = ISA.lock().unwrap();
    let shape = &shapes()[1];
    let x = values::<f32>(&input(shape.positions.len() * shape.heads * shape.dim));
    let run_with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(shape, &x, false))
    };
    let one = run_with(1);
    assert!([2, 3].into_iter().all(|threads| run_with(threads) == one));
}

#[test]
fn widths_that_are_no_pairs_are_refused() {
    let (x, positions, mut y) = (buffer(&[0f32; 3]), buffer(&[0i32]), buffer(&[0f32; 3]));
    let (x, positions) = (View::new(&x, DType::F32, 0, 3), View::new(&positions, DType::I32, 0, 1));
    let error = rotary(x, positions, x, &mut ViewMut::new(&mut y, DType::F32, 0, 3), 1, false).unwrap_err();
    assert_eq!(error.to_string(), "rotary: x has 3 elements, expected 6");
}

//! The emulator's instructions: against the PTX manual's tables, written down once more here, and against what GPUs answered.

use half::{bf16, f16};
use kernels::Device;
use kernels::gpu::Emulation;
use kernels::gpu::golden::{Golden, LANES, PER_LANE, differences, record};

fn emulated() -> Vec<Golden> {
    record(&Device::emulated(Emulation::default()).expect("a C++ compiler")).expect("the wrappers run")
}

fn lane(words: &[u32], lane: usize) -> &[u32] {
    &words[lane * PER_LANE..][..PER_LANE]
}

#[test]
fn conversions_round_as_the_half_crate_does() {
    let golden = &emulated()[0];
    for i in 0..LANES {
        let (given, found) = (lane(&golden.input, i), lane(&golden.output, i));
        let (x, y) = (f32::from_bits(given[0]), f32::from_bits(given[1]));
        let pack = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
        assert_eq!(found[0], pack(bf16::from_f32(x).to_bits(), bf16::from_f32(y).to_bits()), "bf16 of {x:e}, {y:e}");
        assert_eq!(found[1], pack(f16::from_f32(x).to_bits(), f16::from_f32(y).to_bits()), "f16 of {x:e}, {y:e}");
        let half = f16::from_bits(given[2] as u16);
        let widened = f32::from_bits(found[2]);
        assert!(widened == half.to_f32() || (widened.is_nan() && half.is_nan()), "{half} became {widened}");
        // cvt.rna.tf32: to the nearest with 10 bits of mantissa, ties away from zero.
        let tf32 = f32::from_bits(found[3]);
        let unit = f32::from_bits(x.abs().to_bits() & 0x7f80_0000) / 1024.0;
        assert!((tf32 - x).abs() <= unit / 2.0 && (tf32 / unit).fract() == 0.0, "tf32 of {x:e} is {tf32:e}");
    }
}

#[test]
fn copies_land_and_matrices_are_dealt_out_as_in_the_manual() {
    let golden = &emulated()[1];
    // Row r of the 32 rows: 8 elements of 16 bits, zeros where the copy was told not to read.
    let element = |row: usize, i: usize| match row % 4 {
        3 => 0,
        _ => lane(&golden.input, row)[i / 2] >> (16 * (i % 2)) & 0xffff,
    };
    for i in 0..LANES {
        for matrix in 0..4 {
            let plain = element(matrix * 8 + i / 4, i % 4 * 2) | element(matrix * 8 + i / 4, i % 4 * 2 + 1) << 16;
            let transposed = element(matrix * 8 + i % 4 * 2, i / 4) | element(matrix * 8 + i % 4 * 2 + 1, i / 4) << 16;
            let found = lane(&golden.output, i);
            assert_eq!((found[matrix], found[4 + matrix]), (plain, transposed), "lane {i}, matrix {matrix}");
        }
    }
}

/// The matrices a and b as the manual deals their elements out to lanes, (16, k) and (k, 8).
fn dealt(golden: &Golden, k: usize) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let (mut a, mut b) = (vec![vec![0.0; k]; 16], vec![vec![0.0; 8]; k]);
    for i in 0..LANES {
        let (group, thread, words) = (i / 4, i % 4, lane(&golden.input, i));
        for (register, &word) in words[..6].iter().enumerate() {
            let is_b = register >= 4;
            let r = register % 4;
            // Which of a register's elements, and its column (of a) or row (of b).
            let places: Vec<(f32, usize)> = match golden.kernel {
                "product_tf32" => vec![(f32::from_bits(word), thread + 4 * if is_b { r } else { r / 2 })],
                _ => (0..2)
                    .map(|half| {
                        let value = bf16::from_bits((word >> (16 * half)) as u16).to_f32();
                        (value, 2 * thread + half + 8 * if is_b { r } else { r / 2 })
                    })
                    .collect(),
            };
            for (value, along_k) in places {
                if is_b {
                    b[along_k][group] = value;
                } else {
                    a[group + 8 * (r % 2)][along_k] = value;
                }
            }
        }
    }
    (a, b)
}

#[test]
fn products_are_those_of_the_manuals_fragments() {
    for golden in &emulated()[2..4] {
        let k = if golden.kernel == "product_tf32" { 8 } else { 16 };
        let (a, b) = dealt(golden, k);
        for i in 0..LANES {
            for r in 0..4 {
                let (row, column) = (i / 4 + 8 * (r / 2), i % 4 * 2 + r % 2);
                let sum: f32 = (0..k).map(|j| a[row][j] * b[j][column]).sum();
                let found = f32::from_bits(lane(&golden.output, i)[r]);
                assert_eq!(found, sum + (i * 4 + r) as f32, "{}: lane {i}, register {r}", golden.kernel);
            }
        }
    }
}

#[test]
fn bulk_copies_bring_everything_in_and_out() {
    let golden = &emulated()[4];
    let backwards: Vec<u32> = golden.input.iter().rev().copied().collect();
    assert_eq!((golden.kernel, &golden.output), ("bulk", &backwards));
}

#[test]
fn the_emulator_answers_what_gpus_answered() {
    let mut golden = emulated();
    assert_eq!(differences(&golden), [""; 0]);
    golden[4].output[7] ^= 1;
    assert_eq!(differences(&golden), ["golden/bulk: another answer than sm_90 gave"]);
}

//! Strided copies against plain loops.

mod common;

use common::*;
use kernels::copy::*;
use kernels::{DType, Device, Error};

const ALL: [DType; 5] = [DType::F64, DType::F32, DType::BF16, DType::F16, DType::I32];

/// `(blocks, elements of src, elements of dst)`.
fn layouts() -> Vec<(Blocks, usize, usize)> {
    let blocks = |outer, block, src_stride, src_offset, dst_stride, dst_offset| Blocks {
        outer,
        block,
        src_stride,
        src_offset,
        dst_stride,
        dst_offset,
    };
    vec![
        (blocks(1, 1, 0, 0, 0, 0), 1, 1),
        (blocks(0, 5, 5, 0, 5, 0), 0, 3),
        (blocks(5, 41, 50, 3, 41, 0), 300, 205),
        (blocks(7, 64, 64, 0, 192, 64), 7 * 64, 7 * 192),
        (blocks(4, 123, 0, 1, 130, 2), 124, 530),
        (blocks(1, 50_001, 9, 5, 9, 7), 50_010, 50_020),
        (blocks(300, 192, 192, 0, 192, 0), 300 * 192, 300 * 192),
        (blocks(501, 123, 200, 77, 123, 5), 501 * 200, 501 * 123 + 5),
    ]
}

fn plain(blocks: &Blocks, src: &[f64], dst: &mut [f64], accumulate: bool) {
    for o in 0..blocks.outer {
        for i in 0..blocks.block {
            let from = src[o * blocks.src_stride + blocks.src_offset + i];
            let to = &mut dst[o * blocks.dst_stride + blocks.dst_offset + i];
            *to = if accumulate { *to + from } else { from };
        }
    }
}

#[test]
fn blocks_go_where_the_plain_loop_puts_them() {
    for_each_isa(|| {
        for (blocks, src_len, dst_len) in layouts() {
            for dtype in ALL {
                let src = Array::new(dtype, &numbers(src_len, 1));
                let mut dst = Array::new(dtype, &numbers(dst_len, 2));
                let mut expected = dst.values();
                plain(&blocks, &src.values(), &mut expected, false);
                copy_blocks(blocks, src.view(), &mut dst.view_mut(), false).unwrap();
                assert_eq!(dst.values(), expected, "{dtype} {blocks:?}");
            }
            for dtype in TYPES {
                let src = Array::new(dtype, &numbers(src_len, 1));
                let mut dst = Array::new(dtype, &numbers(dst_len, 2));
                let mut expected = dst.values();
                plain(&blocks, &src.values(), &mut expected, true);
                copy_blocks(blocks, src.view(), &mut dst.view_mut(), true).unwrap();
                // Two numbers below 2 are added and rounded once, correctly.
                let what = format!("{dtype} {blocks:?}");
                close(&what, &dst.values(), &rounded(dtype, &expected), 0.0, 0.0);
            }
        }
    });
}

#[test]
fn what_does_not_fit_is_an_error() {
    let fits = Blocks { outer: 2, block: 3, src_stride: 3, src_offset: 0, dst_stride: 4, dst_offset: 1 };
    let src = Array::new(DType::F32, &[1.0; 6]);
    let mut dst = Array::new(DType::F32, &[0.0; 8]);
    let mut run = |blocks| copy_blocks(blocks, src.view(), &mut dst.view_mut(), false);
    run(fits).unwrap();
    for (blocks, what, expected) in [
        (Blocks { dst_offset: 2, ..fits }, "dst", 9),
        (Blocks { src_stride: 4, ..fits }, "src", 7),
        (Blocks { src_stride: usize::MAX, src_offset: 1, ..fits }, "src", usize::MAX),
    ] {
        let op = "copy_blocks";
        let found = if what == "src" { 6 } else { 8 };
        assert_eq!(run(blocks), Err(Error::Length { op, what, found, expected }));
    }
    let overlap = run(Blocks { dst_stride: 2, ..fits }).unwrap_err();
    assert!(overlap.to_string().contains("overlap"), "{overlap}");

    let mut ids = Array::ids(&[0; 8]);
    assert!(matches!(copy_blocks(fits, src.view(), &mut ids.view_mut(), false), Err(Error::Type { .. })));
    let from = Array::ids(&[0; 6]);
    copy_blocks(fits, from.view(), &mut ids.view_mut(), false).unwrap();
    assert!(matches!(copy_blocks(fits, from.view(), &mut ids.view_mut(), true), Err(Error::Type { .. })));
    let far = Array::on(&Device::trace(), DType::F32, 6);
    let error = copy_blocks(fits, far.view(), &mut Array::out(DType::F32, 8).view_mut(), false);
    assert!(matches!(error, Err(Error::Device { .. })), "{error:?}");
}

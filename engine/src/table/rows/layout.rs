//! Cases of the ops that move, repeat or convert elements.

use super::{PRODUCT, case, normal};
use crate::table::{Array, Case, oracle};
use crate::{DType, Device, Kind, Var, ops};

/// Of rows that are moved one element at a time and in whole vectors.
const WIDTHS: [usize; 2] = [5, 16];

pub(super) fn repeat() -> Vec<Case> {
    vec![case(
        "repeat",
        normal([&[3, 5]]),
        PRODUCT,
        |_, v| ops::repeat(&v[0], 4),
        |a| Array::new([4, 3, 5], a[0].data.repeat(4)),
        |_, dy| vec![oracle::sum_axis(dy, 0, |_| 1.0)],
    )]
}

pub(super) fn concat() -> Vec<Case> {
    let one = |width: usize| {
        case(
            format!("concat/rows of {width}"),
            normal([&[2, 3, width], &[2, 1, width], &[2, 4, width]]),
            PRODUCT,
            |_, v| ops::concat(&[&v[0], &v[1], &v[2]]),
            oracle::concat,
            oracle::concat_backward,
        )
    };
    WIDTHS.map(one).into()
}

pub(super) fn slice() -> Vec<Case> {
    let one = |width: usize| {
        case(
            format!("slice/rows of {width}"),
            normal([&[2, 6, width]]),
            PRODUCT,
            |_, v| ops::slice(&v[0], 2, 3),
            |a| oracle::slice(&a[0], 2, 3),
            |a, dy| oracle::slice_backward(&a[0], 2, dy),
        )
    };
    WIDTHS.map(one).into()
}

pub(super) fn reshape() -> Vec<Case> {
    let oracle = |a: &[Array]| Array::new([6, 5], a[0].data.clone());
    vec![case(
        "reshape",
        normal([&[2, 3, 5]]),
        PRODUCT,
        |_, v| ops::reshape(&v[0], [6, 5]),
        oracle,
        |a, dy| vec![Array::new(a[0].shape, dy.data.clone())],
    )]
}

pub(super) fn cast() -> Vec<Case> {
    // GPUs do not compute in F64; finite differences call for it.
    let wider = |device: &Device, v: &[Var]| {
        let wide = match device.kind() {
            Kind::Cpu => DType::F64,
            _ => DType::F32,
        };
        ops::cast(&v[0], wide)
    };
    let narrower = |_: &Device, v: &[Var]| {
        let narrow = match v[0].dtype() {
            DType::F64 => DType::F64,
            _ => DType::BF16,
        };
        ops::cast(&v[0], narrow)
    };
    let same = |a: &[Array]| a[0].clone();
    let back = |_: &[Array], dy: &Array| vec![dy.clone()];
    vec![
        case("cast/wider", normal([&[3, 21]]), PRODUCT, wider, same, back),
        case("cast/narrower", normal([&[3, 21]]), (PRODUCT.1, PRODUCT.1), narrower, same, back),
    ]
}

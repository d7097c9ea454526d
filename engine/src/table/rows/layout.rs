//! Cases of the ops that move, repeat or convert elements.

use super::{PRODUCT, case, normal};
use crate::table::{Array, Case, oracle};
use crate::{DType, ops};

pub(super) fn repeat() -> Vec<Case> {
    vec![case(
        "repeat",
        normal([&[3, 5]]),
        PRODUCT,
        |_, v| ops::repeat(&v[0], 4),
        |a| Array::new([4, 3, 5], a[0].data.repeat(4)),
    )]
}

pub(super) fn concat() -> Vec<Case> {
    let inputs = normal([&[2, 3, 5], &[2, 1, 5], &[2, 4, 5]]);
    vec![case(
        "concat",
        inputs,
        PRODUCT,
        |_, v| ops::concat(&[&v[0], &v[1], &v[2]]),
        oracle::concat,
    )]
}

pub(super) fn slice() -> Vec<Case> {
    vec![case(
        "slice",
        normal([&[2, 6, 5]]),
        PRODUCT,
        |_, v| ops::slice(&v[0], 2, 3),
        |a| oracle::slice(&a[0], 2, 3),
    )]
}

pub(super) fn reshape() -> Vec<Case> {
    let oracle = |a: &[Array]| Array::new([6, 5], a[0].data.clone());
    vec![case(
        "reshape",
        normal([&[2, 3, 5]]),
        PRODUCT,
        |_, v| ops::reshape(&v[0], [6, 5]),
        oracle,
    )]
}

pub(super) fn cast() -> Vec<Case> {
    vec![case(
        "cast",
        normal([&[3, 21]]),
        PRODUCT,
        |_, v| ops::cast(&v[0], DType::F64),
        |a| a[0].clone(),
    )]
}

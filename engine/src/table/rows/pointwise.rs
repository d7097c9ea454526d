//! Cases of the ops that take each element by itself, and of sums.

use super::{ACTIVATIONS, PRODUCT, case, normal};
use crate::table::{Array, Case, oracle};
use crate::{Activation, ops};

pub(super) fn dropout() -> Vec<Case> {
    const P: f64 = 0.3;
    const SEED: u64 = 7;
    let masked = |x: &Array| {
        let factors = oracle::dropout_factors(x.data.len(), P, SEED);
        x.zip(&Array::new(x.shape, factors), |x, factor| x * factor)
    };
    vec![case(
        "dropout",
        normal([&[4, 50]]),
        PRODUCT,
        |_, v| ops::dropout(&v[0], P, SEED),
        move |a| masked(&a[0]),
        move |_, dy| vec![masked(dy)],
    )]
}

/// Shapes of elements that are taken one by one and in whole vectors.
const SHAPES: [[usize; 2]; 2] = [[3, 21], [3, 24]];

pub(super) fn activate() -> Vec<Case> {
    let one = |act: Activation| {
        SHAPES.map(|shape| {
            case(
                format!("activate/{act:?} {shape:?}"),
                normal([&shape]),
                PRODUCT,
                move |_, v| ops::activate(&v[0], act),
                move |a| a[0].map(|x| oracle::activation(x, act)),
                move |a, dy| vec![a[0].zip(dy, |x, d| oracle::slope(x, act) * d)],
            )
        })
    };
    ACTIVATIONS.into_iter().flat_map(one).collect()
}

pub(super) fn silu_mul() -> Vec<Case> {
    SHAPES.map(|shape| silu_mul_of(&shape)).into()
}

fn silu_mul_of(shape: &[usize]) -> Case {
    case(
        format!("silu_mul/{shape:?}"),
        normal([shape, shape]),
        PRODUCT,
        |_, v| ops::silu_mul(&v[0], &v[1]),
        |a| a[0].map(|x| oracle::activation(x, Activation::Silu)).zip(&a[1], |x, y| x * y),
        |a, dy| {
            let silu = |x| oracle::activation(x, Activation::Silu);
            let slope = |x| oracle::slope(x, Activation::Silu);
            vec![a[0].map(slope).zip(&a[1].zip(dy, |up, d| up * d), |s, d| s * d), a[0].map(silu).zip(dy, |s, d| s * d)]
        },
    )
}

pub(super) fn add() -> Vec<Case> {
    let two = |shape: [usize; 2]| {
        case(
            format!("add/{shape:?}"),
            normal([&shape, &shape]),
            PRODUCT,
            |_, v| ops::add(&v[0], &v[1]),
            |a| a[0].zip(&a[1], |x, y| x + y),
            |_, dy| vec![dy.clone(), dy.clone()],
        )
    };
    let twice = case(
        "add/one variable twice",
        normal([&[3, 21]]),
        PRODUCT,
        |_, v| ops::add(&v[0], &v[0]),
        |a| a[0].map(|x| 2.0 * x),
        |_, dy| vec![dy.map(|d| 2.0 * d)],
    );
    SHAPES.map(two).into_iter().chain([twice]).collect()
}

pub(super) fn mul() -> Vec<Case> {
    let one = |shape: [usize; 2]| {
        case(
            format!("mul/{shape:?}"),
            normal([&shape, &shape]),
            PRODUCT,
            |_, v| ops::mul(&v[0], &v[1]),
            |a| a[0].zip(&a[1], |x, y| x * y),
            |a, dy| vec![dy.zip(&a[1], |d, y| d * y), dy.zip(&a[0], |d, x| d * x)],
        )
    };
    SHAPES.map(one).into()
}

pub(super) fn scale() -> Vec<Case> {
    let one = |shape: [usize; 2]| {
        case(
            format!("scale/{shape:?}"),
            normal([&shape]),
            PRODUCT,
            |_, v| ops::scale(&v[0], -2.5),
            |a| a[0].map(|x| -2.5 * x),
            |_, dy| vec![dy.map(|d| -2.5 * d)],
        )
    };
    SHAPES.map(one).into()
}

pub(super) fn add_broadcast() -> Vec<Case> {
    let one = |width: usize| {
        case(
            format!("add_broadcast/3×{width} to four"),
            normal([&[4, 3, width], &[3, width]]),
            PRODUCT,
            |_, v| ops::add_broadcast(&v[0], &v[1]),
            |a| {
                let data = a[0].data.iter().zip(a[1].data.iter().cycle());
                Array::new(a[0].shape, data.map(|(x, b)| x + b).collect())
            },
            |_, dy| vec![dy.clone(), oracle::sum_axis(dy, 0, |_| 1.0)],
        )
    };
    [5, 8].map(one).into()
}

pub(super) fn sum() -> Vec<Case> {
    vec![
        case(
            "sum/all",
            normal([&[4, 3, 5]]),
            PRODUCT,
            |_, v| ops::sum(&v[0]),
            |a| Array::new([1], vec![a[0].data.iter().sum()]),
            |a, dy| vec![a[0].map(|_| dy.data[0])],
        ),
        sum_axis(&[4, 3, 5]),
        sum_axis(&[4, 3, 8]),
        // Parts of an axis, and the last of them shorter.
        sum_axis(&[2, 261, 33]),
        case(
            "sum/mean of the last",
            normal([&[4, 3, 5]]),
            PRODUCT,
            |_, v| ops::mean_axis(&v[0], 2),
            |a| oracle::sum_axis(&a[0], 2, |n| 1.0 / n as f64),
            |a, dy| oracle::sum_axis_backward(&a[0], 2, |n| 1.0 / n as f64, dy),
        ),
    ]
}

fn sum_axis(shape: &[usize]) -> Case {
    case(
        format!("sum/axis 1 of {shape:?}"),
        normal([shape]),
        PRODUCT,
        |_, v| ops::sum_axis(&v[0], 1),
        |a| oracle::sum_axis(&a[0], 1, |_| 1.0),
        |a, dy| oracle::sum_axis_backward(&a[0], 1, |_| 1.0, dy),
    )
}

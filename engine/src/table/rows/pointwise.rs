//! Cases of the ops that take each element by itself, and of sums.

use super::{ACTIVATIONS, PRODUCT, case, normal};
use crate::table::{Array, Case, oracle};
use crate::{Activation, DType, Device, Result, Tensor, Var, ops};

/// Dropout's oracle is the op itself on ones: that fixes the mask; its statistics have a test of their own.
pub(super) fn dropout() -> Vec<Case> {
    const P: f64 = 0.3;
    let mask = |shape: crate::Shape| -> Result<Vec<f64>> {
        ops::dropout(
            &Var::constant(Tensor::full(&Device::cpu(), DType::F64, shape, 1.0)?),
            P,
            7,
        )?
        .tensor()
        .to_f64()
    };
    vec![case(
        "dropout",
        normal([&[4, 50]]),
        PRODUCT,
        |_, v| ops::dropout(&v[0], P, 7),
        move |a| {
            let mask = mask(a[0].shape).expect("dropout of ones on the CPU");
            a[0].zip(&Array::new(a[0].shape, mask), |x, m| x * m)
        },
    )]
}

pub(super) fn activate() -> Vec<Case> {
    let inputs = || vec![Array::random([3, 21], 1.0, 1)];
    ACTIVATIONS
        .map(|act| {
            case(
                format!("activate/{act:?}"),
                inputs(),
                PRODUCT,
                move |_, v| ops::activate(&v[0], act),
                move |a| a[0].map(|x| oracle::activation(x, act)),
            )
        })
        .into()
}

pub(super) fn silu_mul() -> Vec<Case> {
    vec![case(
        "silu_mul",
        normal([&[3, 21], &[3, 21]]),
        PRODUCT,
        |_, v| ops::silu_mul(&v[0], &v[1]),
        |a| {
            a[0].map(|x| oracle::activation(x, Activation::Silu))
                .zip(&a[1], |x, y| x * y)
        },
    )]
}

pub(super) fn add() -> Vec<Case> {
    vec![
        case(
            "add",
            normal([&[3, 21], &[3, 21]]),
            PRODUCT,
            |_, v| ops::add(&v[0], &v[1]),
            |a| a[0].zip(&a[1], |x, y| x + y),
        ),
        case(
            "add/one variable twice",
            normal([&[3, 21]]),
            PRODUCT,
            |_, v| ops::add(&v[0], &v[0]),
            |a| a[0].map(|x| 2.0 * x),
        ),
    ]
}

pub(super) fn mul() -> Vec<Case> {
    vec![case(
        "mul",
        normal([&[3, 21], &[3, 21]]),
        PRODUCT,
        |_, v| ops::mul(&v[0], &v[1]),
        |a| a[0].zip(&a[1], |x, y| x * y),
    )]
}

pub(super) fn scale() -> Vec<Case> {
    vec![case(
        "scale",
        normal([&[3, 21]]),
        PRODUCT,
        |_, v| ops::scale(&v[0], -2.5),
        |a| a[0].map(|x| -2.5 * x),
    )]
}

pub(super) fn add_broadcast() -> Vec<Case> {
    vec![case(
        "add_broadcast",
        normal([&[4, 3, 5], &[3, 5]]),
        PRODUCT,
        |_, v| ops::add_broadcast(&v[0], &v[1]),
        |a| {
            let data = a[0]
                .data
                .iter()
                .enumerate()
                .map(|(i, x)| x + a[1].data[i % 15])
                .collect();
            Array::new(a[0].shape, data)
        },
    )]
}

pub(super) fn sum() -> Vec<Case> {
    vec![
        case(
            "sum/all",
            normal([&[4, 3, 5]]),
            PRODUCT,
            |_, v| ops::sum(&v[0]),
            |a| Array::new([1], vec![a[0].data.iter().sum()]),
        ),
        case(
            "sum/axis",
            normal([&[4, 3, 5]]),
            PRODUCT,
            |_, v| ops::sum_axis(&v[0], 1),
            |a| oracle::sum_axis(&a[0], 1, |_| 1.0),
        ),
        case(
            "sum/mean of the last",
            normal([&[4, 3, 5]]),
            PRODUCT,
            |_, v| ops::mean_axis(&v[0], 2),
            |a| oracle::sum_axis(&a[0], 2, |n| 1.0 / n as f64),
        ),
    ]
}

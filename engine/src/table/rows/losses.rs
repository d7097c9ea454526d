//! Cases of the losses.

use super::{LOSS, case, ints, normal, unit};
use crate::table::{Array, Case, oracle};
use crate::{Device, Var, ops};

pub(super) fn cross_entropy() -> Vec<Case> {
    const TARGETS: [i32; 5] = [2, 0, -100, 8, 3];
    [0.0, 0.1]
        .map(|smoothing| {
            case(
                format!("cross_entropy/smoothing {smoothing}"),
                normal([&[5, 7], &[9, 7]]),
                LOSS,
                move |device, v| {
                    Ok(ops::linear_cross_entropy(&v[0], &v[1], &ints(device, &TARGETS, &[5])?, smoothing)?.loss)
                },
                move |a| oracle::cross_entropy(&a[0], &a[1], &TARGETS, smoothing),
            )
        })
        .into()
}

pub(super) fn clip_loss() -> Vec<Case> {
    let run = |_: &Device, v: &[Var]| ops::clip_loss(&v[0], &v[1], &v[2]);
    let scale = || Array::new([1], vec![14.3f64.ln()]);
    // In bf16 a score of size 1 errs by 2⁻⁹, times the scale of 14: the loss by 0.03.
    let tolerance = (2e-5, 5e-2);
    vec![
        case(
            "clip_loss/one query",
            vec![unit(&[6, 8], 1), unit(&[6, 8], 2), scale()],
            tolerance,
            run,
            |a| oracle::clip_loss(&a[0], &a[1], &a[2]),
        ),
        case(
            "clip_loss/best of three queries",
            vec![unit(&[5, 3, 8], 1), unit(&[5, 8], 2), scale()],
            tolerance,
            run,
            |a| oracle::clip_loss(&a[0], &a[1], &a[2]),
        ),
    ]
}

pub(super) fn siglip_loss() -> Vec<Case> {
    let run = |_: &Device, v: &[Var]| ops::siglip_loss(&v[0], &v[1], &v[2], &v[3]);
    let inputs = vec![
        unit(&[6, 8], 1),
        unit(&[6, 8], 2),
        Array::new([1], vec![10f64.ln()]),
        Array::new([1], vec![-10.0]),
    ];
    vec![case("siglip_loss", inputs, (2e-5, 5e-2), run, |a| {
        oracle::siglip_loss(&a[0], &a[1], &a[2], &a[3])
    })]
}

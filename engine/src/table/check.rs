//! The checks a case goes through.

use super::{Array, Case};
use crate::{DType, Device, Result, Shape, Tape, Var, ops};

/// A case's result and, where it has a derivative, the gradients of `Σ y ⊙ direction` with respect to its inputs.
fn evaluate(
    case: &Case,
    inputs: &[Array],
    device: &Device,
    dtype: DType,
    direction: &Array,
) -> Result<(Array, Vec<Array>)> {
    let tape = Tape::new();
    let differentiable = case.gradients.is_some();
    let input = |input: &Array| {
        let tensor = input.tensor(device, dtype)?;
        Ok(if differentiable { tape.leaf(tensor) } else { Var::constant(tensor) })
    };
    let inputs = inputs.iter().map(input).collect::<Result<Vec<_>>>()?;
    let y = (case.run)(device, &inputs)?;
    let result = Array::new(y.shape(), y.tensor().to_f64()?);
    if !differentiable {
        return Ok((result, Vec::new()));
    }
    let direction = Var::constant(direction.tensor(device, y.dtype())?);
    let gradients = tape.gradients(&ops::sum(&ops::mul(&y, &direction)?)?)?;
    let gradient = |v: &Var| Ok(Array::new(v.shape(), gradients.of(v)?.to_f64()?));
    Ok((result, inputs.iter().map(gradient).collect::<Result<Vec<_>>>()?))
}

fn direction(shape: Shape) -> Array {
    Array::random(shape, 1.0, 99)
}

/// Compares the oracle's gradients with central differences of the oracle's result, for every element of every input, or for
/// some dozens where there are more. Returns what is wrong, empty when nothing is.
pub fn finite_differences(case: &Case) -> Vec<String> {
    const STEP: f64 = 1e-5;
    const MOST: usize = 60;
    let Some(gradients) = &case.gradients else {
        return Vec::new();
    };
    let direction = direction((case.result)(&case.inputs).shape);
    let gradients = gradients(&case.inputs, &direction);
    if gradients.len() != case.inputs.len() {
        let (found, expected) = (gradients.len(), case.inputs.len());
        return vec![format!("{}: the oracle has {found} gradients of {expected} inputs", case.name)];
    }
    let project = |inputs: &[Array]| -> f64 {
        let y = (case.result)(inputs).data;
        y.iter().zip(&direction.data).map(|(y, d)| y * d).sum()
    };
    let mut wrong = Vec::new();
    for (i, gradient) in gradients.iter().enumerate() {
        let scale = gradient.largest().max(1.0);
        // An odd stride goes through rows and columns of even widths.
        for j in (0..gradient.data.len()).step_by((gradient.data.len() / MOST) | 1) {
            let moved = |by: f64| {
                let mut inputs = case.inputs.clone();
                inputs[i].data[j] += by;
                project(&inputs)
            };
            let difference = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            // Central differences err by O(STEP²) ≈ 1e-10 and by rounding, 1e-16 / STEP ≈ 1e-11 times the sum's size.
            let close = (difference - gradient.data[j]).abs() <= 1e-6 * scale;
            if !close {
                wrong.push(format!(
                    "{}: the oracle's gradient {i}[{j}] is {} but differences say {difference}",
                    case.name, gradient.data[j]
                ));
            }
        }
    }
    wrong
}

/// Compares result and gradients on `device` in `dtype` with the oracle's, whose gradients [`finite_differences`] proves.
/// Returns what is wrong, empty when nothing is.
pub fn follows_oracle(case: &Case, device: &Device, dtype: DType) -> Result<Vec<String>> {
    let rounded = case.inputs.iter().map(|a| a.rounded(dtype)).collect::<Result<Vec<_>>>()?;
    let expected = (case.result)(&rounded);
    let direction = direction(expected.shape).rounded(dtype)?;
    let (y, gradients) = evaluate(case, &rounded, device, dtype, &direction)?;
    let tolerance = match dtype {
        DType::F64 => 1e-11,
        DType::BF16 => case.tolerance.1,
        _ => case.tolerance.0,
    };
    let mut wrong = Vec::new();
    let what = format!("{} {dtype} result", case.name);
    compare(&mut wrong, &what, &y, &expected, expected.largest(), tolerance);
    let exact = case.gradients.as_ref().map_or(Vec::new(), |exact| exact(&rounded, &direction));
    let largest = exact.iter().map(Array::largest).fold(0.0, f64::max);
    for (i, (found, exact)) in gradients.iter().zip(&exact).enumerate() {
        // Where all cancels, as for scores of a single key, what rounding leaves has the size of what cancelled.
        let scale = match exact.largest() {
            own if own < 1e-9 * largest => largest,
            own => own,
        };
        let what = format!("{} {dtype} gradient {i}", case.name);
        compare(&mut wrong, &what, found, exact, scale, 3.0 * tolerance);
    }
    Ok(wrong)
}

/// Errors relative to `scale`.
fn compare(wrong: &mut Vec<String>, what: &str, found: &Array, exact: &Array, scale: f64, tolerance: f64) {
    if found.shape.elements() != exact.shape.elements() {
        wrong.push(format!("{what}: shape {}, expected {}", found.shape, exact.shape));
        return;
    }
    let scale = scale.max(1e-3);
    let errors = found.data.iter().zip(&exact.data).map(|(f, e)| (f - e).abs());
    let (place, worst) = errors.enumerate().fold((0, 0.0), |m, (i, e)| if e > m.1 || e.is_nan() { (i, e) } else { m });
    if worst.is_nan() || worst > tolerance * scale {
        let (f, e) = (found.data[place], exact.data[place]);
        wrong.push(format!(
            "{what}: element {place} is {f}, expected {e}: off by {worst:.2e}, allowed {:.2e}",
            tolerance * scale
        ));
    }
}

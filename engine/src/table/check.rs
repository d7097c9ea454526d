//! The checks a case goes through.

use super::{Array, Case};
use crate::{DType, Device, Result, Shape, Tape, Var, ops};

/// A case's result and the gradients of `Σ y ⊙ direction` with respect to its inputs.
fn evaluate(
    case: &Case,
    inputs: &[Array],
    device: &Device,
    dtype: DType,
    direction: &Array,
) -> Result<(Array, Vec<Array>)> {
    let tape = Tape::new();
    let leaf = |input: &Array| Ok(tape.leaf(input.tensor(device, dtype)?));
    let inputs = inputs.iter().map(leaf).collect::<Result<Vec<_>>>()?;
    let y = (case.run)(device, &inputs)?;
    let direction = Var::constant(direction.tensor(device, y.dtype())?);
    let gradients = tape.gradients(&ops::sum(&ops::mul(&y, &direction)?)?)?;
    let gradient = |v: &Var| Ok(Array::new(v.shape(), gradients.of(v)?.to_f64()?));
    let gradients = inputs.iter().map(gradient).collect::<Result<Vec<_>>>()?;
    Ok((Array::new(y.shape(), y.tensor().to_f64()?), gradients))
}

fn direction(shape: Shape) -> Array {
    Array::random(shape, 1.0, 99)
}

/// Compares the derivative in f64 with central differences of the op's own result, for every element of every input.
/// Returns what is wrong, empty when nothing is.
pub fn finite_differences(case: &Case) -> Result<Vec<String>> {
    const STEP: f64 = 1e-5;
    let device = Device::cpu();
    let direction = direction((case.oracle)(&case.inputs).shape);
    let (_, gradients) = evaluate(case, &case.inputs, &device, DType::F64, &direction)?;
    let project = |inputs: &[Array]| -> Result<f64> {
        let vars = inputs
            .iter()
            .map(|a| Ok(Var::constant(a.tensor(&device, DType::F64)?)))
            .collect::<Result<Vec<_>>>()?;
        let y = (case.run)(&device, &vars)?.tensor().to_f64()?;
        Ok(y.iter().zip(&direction.data).map(|(y, d)| y * d).sum())
    };
    let mut wrong = Vec::new();
    for (i, gradient) in gradients.iter().enumerate() {
        let scale = gradient.largest().max(1.0);
        for j in 0..gradient.data.len() {
            let moved = |by: f64| {
                let mut inputs = case.inputs.clone();
                inputs[i].data[j] += by;
                project(&inputs)
            };
            let difference = (moved(STEP)? - moved(-STEP)?) / (2.0 * STEP);
            // Central differences err by O(STEP²) ≈ 1e-10 and by rounding, 1e-16 / STEP ≈ 1e-11 times the sum's size.
            if (difference - gradient.data[j]).abs() > 1e-6 * scale {
                wrong.push(format!(
                    "{}: input {i}[{j}]: {} but differences say {difference}",
                    case.name, gradient.data[j]
                ));
            }
        }
    }
    Ok(wrong)
}

/// Compares result and gradients on `device` in `dtype` with the oracle, and with the derivative in f64, which
/// [`finite_differences`] has proven. Returns what is wrong, empty when nothing is.
pub fn follows_oracle(case: &Case, device: &Device, dtype: DType) -> Result<Vec<String>> {
    let rounded = case
        .inputs
        .iter()
        .map(|a| a.rounded(dtype))
        .collect::<Result<Vec<_>>>()?;
    let expected = (case.oracle)(&rounded);
    let direction = direction(expected.shape).rounded(dtype)?;
    let (y, gradients) = evaluate(case, &rounded, device, dtype, &direction)?;
    let tolerance = match dtype {
        DType::F64 => 1e-11,
        DType::BF16 => case.tolerance.1,
        _ => case.tolerance.0,
    };
    let mut wrong = Vec::new();
    compare(
        &mut wrong,
        &format!("{} {dtype} result", case.name),
        &y,
        &expected,
        expected.largest(),
        tolerance,
    );
    let (_, exact) = evaluate(case, &rounded, &Device::cpu(), DType::F64, &direction)?;
    let largest = exact.iter().map(Array::largest).fold(0.0, f64::max);
    for (i, (found, exact)) in gradients.iter().zip(&exact).enumerate() {
        // Where all cancels, as for scores of a single key, what rounding leaves has the size of what cancelled.
        let scale = match exact.largest() {
            own if own < 1e-9 * largest => largest,
            own => own,
        };
        compare(
            &mut wrong,
            &format!("{} {dtype} gradient {i}", case.name),
            found,
            exact,
            scale,
            3.0 * tolerance,
        );
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
    let (place, worst) = errors
        .enumerate()
        .fold((0, 0.0), |m, (i, e)| if e > m.1 || e.is_nan() { (i, e) } else { m });
    if worst.is_nan() || worst > tolerance * scale {
        let (f, e) = (found.data[place], exact.data[place]);
        wrong.push(format!(
            "{what}: element {place} is {f}, expected {e}: off by {worst:.2e}, allowed {:.2e}",
            tolerance * scale
        ));
    }
}

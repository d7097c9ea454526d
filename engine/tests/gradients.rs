//! What gathers in the arena of gradients, against the gradients that the tape itself hands out for leaves.

use engine::{Activation, AdamW, DType, Device, Graph, Init, Optimizer, ParamBuilder, ParamId, Params, Result, Tape};
use engine::{Tensor, Var, ops};

/// A loss whose table is looked up, multiplied with and taken by a cross-entropy.
fn loss([table, weight, bias]: [&Var; 3]) -> Result<Var> {
    let ids = Tensor::from_slice(table.tensor().device(), &[3, 1, 3, 0, 4, 3], [6])?;
    let x = ops::embedding(table, &ids)?;
    let x = ops::linear_act(&x, weight, Some(bias), Activation::Gelu)?;
    let spread = ops::linear(&x, table, None)?;
    let x = ops::add(&x, &ops::linear(&spread, weight, None)?)?;
    Ok(ops::linear_cross_entropy(&x, table, &ids)?.loss)
}

fn model() -> Result<(Params, [ParamId; 3])> {
    let mut builder = ParamBuilder::new();
    let mut add = |name, shape: [usize; 2]| builder.add(name, shape, Init::Normal(0.5));
    let [table, _, weight] = [add("table", [5, 5])?, add("apart", [3, 1])?, add("weight", [5, 5])?];
    let bias = builder.add("bias", [5], Init::Normal(0.5))?;
    Ok((builder.build(&Device::cpu(), DType::F64, 1)?, [table, weight, bias]))
}

/// The gradients of table, weight and bias one after the other, from the tape.
fn expected(params: &Params, ids: [ParamId; 3]) -> Result<[Vec<f64>; 3]> {
    let tape = Tape::new();
    let leaves = ids.map(|id| tape.leaf(params.tensor(id)));
    let gradients = tape.gradients(&loss(leaves.each_ref())?)?;
    let [table, weight, bias] = leaves.each_ref().map(|leaf| gradients.of(leaf)?.to_f64());
    Ok([table?, weight?, bias?])
}

fn close(found: &[f64], expected: &[f64], times: f64) {
    for (place, (f, e)) in found.iter().zip(expected).enumerate() {
        // The order of few additions in f64.
        assert!((f - times * e).abs() <= 1e-14 * (1.0 + e.abs()), "{place}: {f}, expected {times} x {e}");
    }
}

#[test]
fn all_uses_and_passes_add_up_and_what_took_no_part_is_zero() -> Result<()> {
    let (mut params, ids) = model()?;
    let mut optimizer = Optimizer::new(&params, AdamW::default())?;
    for (round, passes) in [1, 3, 2].into_iter().enumerate() {
        let [table, weight, bias] = expected(&params, ids)?;
        for pass in 0..passes {
            let graph = Graph::training(&params, 0).with_recomputation(pass == 1);
            let vars = ids.map(|id| graph.param(id));
            let loss = match pass {
                // The parameters are reached from inside a block that is computed again.
                1 => graph.block(&[], move |graph, _| loss(ids.map(|id| graph.param(id)).each_ref()))?,
                _ => loss(vars.each_ref())?,
            };
            graph.backward(&loss, optimizer.gradients())?;
        }
        let found = optimizer.gradients().tensor()?.to_f64()?;
        let times = f64::from(passes);
        close(&found[..25], &table, times);
        assert_eq!(found[25..28], [0.0; 3], "round {round}");
        close(&found[28..53], &weight, times);
        close(&found[53..], &bias, times);
        // The next round must not see this one's gradients.
        optimizer.step(&mut params, 0.01)?;
    }
    Ok(())
}

#[test]
fn arenas_of_passes_side_by_side_add_up() -> Result<()> {
    let (mut params, ids) = model()?;
    let (mut apart, mut together) =
        (Optimizer::new(&params, AdamW::default())?, Optimizer::new(&params, AdamW::default())?);
    let pass = |params: &Params, gradients: &mut _| -> Result<()> {
        let graph = Graph::training(params, 0);
        let loss = loss(ids.map(|id| graph.param(id)).each_ref())?;
        graph.backward(&loss, gradients)
    };
    for _ in 0..2 {
        let [first, second] = apart.separate_gradients(&params, 2)? else { unreachable!("two were asked for") };
        pass(&params, first)?;
        pass(&params, second)?;
        for _ in 0..2 {
            pass(&params, together.gradients())?;
        }
        let (mut other, _) = model()?;
        let norms = [together.step(&mut other, 0.0)?, apart.step(&mut params, 0.0)?].map(|report| report.grad_norm);
        assert!((norms[0] - norms[1]).abs() <= 1e-12 * norms[0], "{norms:?}");
    }
    Ok(())
}

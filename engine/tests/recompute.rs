//! A recomputed block gives the loss and the gradients of the same block kept in memory, to the last bit.

use engine::{
    Activation, AdamW, DType, Device, Graph, Init, Optimizer, ParamBuilder, ParamId, Params, Result, Tensor, ops,
};

struct Net {
    params: Params,
    layers: Vec<(ParamId, ParamId)>,
}

fn net(device: &Device) -> Result<Net> {
    let mut builder = ParamBuilder::new();
    let mut layers = Vec::new();
    for i in 0..3 {
        let up = builder.add(&format!("{i}.up"), [32, 16], Init::Normal(0.2))?;
        let down = builder.add(&format!("{i}.down"), [16, 32], Init::Normal(0.2))?;
        layers.push((up, down));
    }
    Ok(Net { params: builder.build(device, DType::F32, 3)?, layers })
}

/// Loss and gradients; with `x` a constant, so that blocks hang on the tape by their parameters alone.
fn loss_and_gradients(net: &Net, recompute: bool) -> Result<(f64, Vec<f32>, usize)> {
    let device = net.params.device();
    let mut optimizer = Optimizer::new(&net.params, AdamW::default())?;
    let before = device.memory().in_use;
    let graph = Graph::training(&net.params, 5).with_recomputation(recompute);
    let values: Vec<f32> = (0..64 * 16).map(|i| (i as f32 * 0.37).sin()).collect();
    let mut x = graph.input(Tensor::from_slice(device, &values, [64, 16])?);
    for (up, down) in net.layers.iter().copied() {
        x = graph.block(&[&x], move |graph, inputs| {
            let hidden = ops::linear_act(&inputs[0], &graph.param(up), None, Activation::Gelu)?;
            let hidden = ops::dropout(&hidden, 0.2, graph.dropout_seed())?;
            ops::linear_residual(&hidden, &graph.param(down), None, &inputs[0])
        })?;
    }
    let loss = ops::sum(&ops::mul(&x, &x)?)?;
    let held = device.memory().in_use - before;
    graph.backward(&loss, optimizer.gradients())?;
    Ok((loss.tensor().item()?, optimizer.gradients().tensor()?.to_vec()?, held))
}

#[test]
fn gradients_are_identical_and_less_is_kept() -> Result<()> {
    let net = net(&Device::cpu())?;
    let (loss, gradients, held) = loss_and_gradients(&net, false)?;
    let (again, recomputed, held_less) = loss_and_gradients(&net, true)?;
    assert_eq!(loss, again);
    assert_eq!(gradients, recomputed);
    assert!(gradients.iter().all(|g| g.is_finite()) && gradients.iter().any(|g| *g != 0.0));
    // Kept: per block an input (16), pre-activation, activation and dropped activation (32 each); recomputed: the input alone.
    assert!(held_less * 2 < held, "{held_less} bytes held with recomputation, {held} without");
    Ok(())
}

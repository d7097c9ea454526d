//! Training that goes on from an optimiser's state is the training that was never interrupted, to the last bit.

use engine::ops;
use engine::{
    AdamW, DType, Device, Error, Graph, GroupSpec, Init, Optimizer, ParamBuilder, ParamSpec, Params, Result, Tensor,
    Update,
};
use std::collections::HashMap;

fn parameters(dtype: DType) -> Result<Params> {
    let mut builder = ParamBuilder::new();
    builder.add("weight", [6, 6], Init::Normal(0.5))?;
    builder.add("bias", [6], Init::Normal(0.5))?;
    builder.add("fixed", [6], Init::Normal(0.5))?;
    let group = |update, frozen| GroupSpec { update, frozen, weight_decay: 0.1, ..GroupSpec::default() };
    let groups = vec![group(Update::Muon, false), group(Update::AdamW, false), group(Update::AdamW, true)];
    let names = ["weight", "bias", "fixed"];
    let place = move |spec: &ParamSpec| names.iter().position(|&name| name == spec.name).unwrap_or(0);
    builder.build_with_weights(&Device::cpu(), dtype, 7, (groups, place), |_| false)
}

/// Steps `from` to `to` of a course that depends on the step's number alone.
fn train(params: &mut Params, optimizer: &mut Optimizer, to: u64) -> Result<()> {
    for step in optimizer.steps()..to {
        let graph = Graph::training(params, step);
        let values: Vec<f64> = (0..24).map(|i| ((i + 5 * step) as f64 * 0.7).sin()).collect();
        let x = graph.input(Tensor::from_slice(&Device::cpu(), &values, [4, 6])?.cast(params.dtype())?);
        let param = |name| graph.param(params.find(name).expect("a parameter"));
        let y = ops::linear(&x, &param("weight"), Some(&param("bias")))?;
        let loss = ops::sum(&ops::mul(&y, &y)?)?;
        graph.backward(&loss, optimizer.gradients())?;
        optimizer.step(params, 0.05)?;
    }
    Ok(())
}

fn all(params: &Params, optimizer: &Optimizer) -> Result<Vec<(String, Vec<u8>)>> {
    let computed = params.ids().map(|id| (params.name(id).to_string(), params.tensor(id)));
    let state = optimizer.state(params).into_iter().chain(computed);
    state.map(|(name, tensor)| Ok((name, tensor.to_bytes()?))).collect()
}

fn settings() -> Vec<(DType, AdamW)> {
    let plain = AdamW::default();
    let stochastic = AdamW { stochastic: Some(9), ..plain };
    let average = AdamW { average: Some(0.9), ..stochastic };
    vec![
        (DType::F32, plain),
        (DType::F64, average),
        (DType::BF16, plain),
        (DType::BF16, stochastic),
        (DType::BF16, average),
    ]
}

#[test]
fn a_restored_optimizer_takes_the_same_steps() -> Result<()> {
    for (dtype, settings) in settings() {
        let mut params = parameters(dtype)?;
        let mut optimizer = Optimizer::new(&params, settings)?;
        train(&mut params, &mut optimizer, 3)?;
        let kept: HashMap<String, Tensor> = optimizer
            .state(&params)
            .into_iter()
            .map(|(name, tensor)| Ok((name, tensor.copy()?)))
            .collect::<Result<_>>()?;
        assert!(!kept.contains_key("master.fixed") && kept.contains_key("exp_avg.weight"));
        train(&mut params, &mut optimizer, 6)?;

        let mut again = parameters(dtype)?;
        let mut resumed = Optimizer::new(&again, settings)?;
        resumed.restore(&mut again, 3, |name| Ok(kept[name].clone()))?;
        train(&mut again, &mut resumed, 6)?;
        assert!(all(&params, &optimizer)? == all(&again, &resumed)?, "{dtype} {settings:?}");
    }
    Ok(())
}

#[test]
fn a_state_of_another_shape_is_refused_by_name() -> Result<()> {
    let mut params = parameters(DType::F32)?;
    let mut optimizer = Optimizer::new(&params, AdamW::default())?;
    let refused = optimizer.restore(&mut params, 1, |_| Tensor::zeros(&Device::cpu(), DType::F32, [6, 6]));
    assert!(matches!(&refused, Err(Error::Param { name, .. }) if name == "bias"), "{refused:?}");
    Ok(())
}

#[test]
fn the_running_average_follows_the_weights_and_changes_places_with_them() -> Result<()> {
    for dtype in [DType::F32, DType::BF16] {
        let mut params = parameters(dtype)?;
        let decay = 0.75;
        let settings = AdamW { average: Some(decay), stochastic: Some(1), ..AdamW::default() };
        let mut optimizer = Optimizer::new(&params, settings)?;
        let id = params.find("weight").expect("a parameter");
        let mut expected = params.master(id).to_f64()?;
        for step in 1..4 {
            train(&mut params, &mut optimizer, step)?;
            for (average, weight) in expected.iter_mut().zip(params.master(id).to_f64()?) {
                *average += (1.0 - decay) * (weight - *average);
            }
        }
        let before = all(&params, &optimizer)?;
        optimizer.swap_average(&mut params)?;
        for (found, expected) in params.master(id).to_f64()?.iter().zip(&expected) {
            // f32 keeps seven digits of three sums.
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
        let rounded = params.master(id).cast(dtype)?;
        assert_eq!(params.tensor(id).to_bytes()?, rounded.to_bytes()?, "the model computes with the average");
        optimizer.swap_average(&mut params)?;
        assert!(before == all(&params, &optimizer)?, "{dtype}: the weights are back as they were");
    }
    Ok(())
}

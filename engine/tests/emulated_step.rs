//! An optimiser's step with the CUDA kernels, emulated: what comes back to the host, what a NaN changes, and the CPU's results.

use engine::{
    AdamW, DType, Device, Error, Graph, GroupSpec, Init, Optimizer, ParamBuilder, Params, Result, Tensor, Update, ops,
};
use kernels::gpu::Emulation;

fn device() -> Device {
    Device::emulated(Emulation::default()).expect("a C++ compiler")
}

/// Two matrices and a vector, all stepped by `update`.
fn params(device: &Device, dtype: DType, update: Update) -> Result<Params> {
    let mut builder = ParamBuilder::new();
    builder.add("up", [12, 8], Init::Normal(0.5))?;
    builder.add("down", [8, 12], Init::Normal(0.5))?;
    builder.add("bias", [12], Init::Normal(0.5))?;
    let mut params = builder.build(device, dtype, 1)?;
    let spec = GroupSpec { update, weight_decay: 0.1, ..GroupSpec::default() };
    params.regroup(vec![spec], |_| 0)?;
    Ok(params)
}

/// Forward and backward of a small network, the input multiplied by `size`.
fn learn(params: &Params, optimizer: &mut Optimizer, size: f64) -> Result<()> {
    let graph = Graph::training(params, 0);
    let find = |name| graph.param(params.find(name).expect("a parameter"));
    let values: Vec<f64> = (0..40).map(|i| size * (f64::from(i) * 0.7).sin()).collect();
    let x = Tensor::from_slice(params.device(), &values, [5, 8])?.cast(params.dtype())?;
    let hidden = ops::linear(&graph.input(x), &find("up"), Some(&find("bias")))?;
    let loss = ops::sum(&ops::linear(&hidden, &find("down"), None)?)?;
    graph.backward(&loss, optimizer.gradients())
}

fn all(params: &Params) -> Result<Vec<f64>> {
    let both = params.ids().flat_map(|id| [params.tensor(id), params.master(id)]);
    let values: Vec<Vec<f64>> = both.map(|tensor| tensor.to_f64()).collect::<Result<_>>()?;
    Ok(values.concat())
}

#[test]
fn one_number_comes_back_a_step() -> Result<()> {
    for update in [Update::AdamW, Update::Muon] {
        let params = &mut params(&device(), DType::BF16, update)?;
        let mut optimizer = Optimizer::new(params, AdamW::default())?;
        learn(params, &mut optimizer, 1.0)?;
        let device = params.device().clone();
        let before = device.downloads();
        learn(params, &mut optimizer, 1.0)?;
        assert_eq!(device.downloads(), before, "{update:?}: forward and backward");
        optimizer.step(params, 0.1)?;
        assert_eq!(device.downloads(), before + 1, "{update:?}: the norm of the gradients");
    }
    Ok(())
}

#[test]
fn a_step_that_is_not_finite_changes_nothing() -> Result<()> {
    for update in [Update::AdamW, Update::Muon] {
        for dtype in [DType::F32, DType::BF16] {
            let params = &mut params(&device(), dtype, update)?;
            let mut optimizer = Optimizer::new(params, AdamW::default())?;
            learn(params, &mut optimizer, 1.0)?;
            optimizer.step(params, 0.1)?;
            let before = all(params)?;
            learn(params, &mut optimizer, f64::NAN)?;
            let refused = optimizer.step(params, 0.1);
            assert!(matches!(refused, Err(Error::NotFinite { .. })), "{update:?} {dtype}: {refused:?}");
            assert_eq!(all(params)?, before, "{update:?} {dtype}");
            assert_eq!(optimizer.steps(), 1);
        }
    }
    Ok(())
}

#[test]
fn steps_follow_the_cpu() -> Result<()> {
    for update in [Update::AdamW, Update::Muon] {
        let run = |device: &Device, dtype: DType| -> Result<Vec<f64>> {
            let params = &mut params(device, dtype, update)?;
            let mut optimizer = Optimizer::new(params, AdamW::default())?;
            for _ in 0..3 {
                learn(params, &mut optimizer, 3.0)?;
                let norm = optimizer.step(params, 0.02)?.grad_norm;
                assert!(norm > 1.0, "clipped, {norm}");
            }
            all(params)
        };
        // The CPU's doubles, which the table of ops holds against plain loops.
        let expected = run(&Device::cpu(), DType::F64)?;
        for (found, expected) in run(&device(), DType::F32)?.iter().zip(expected) {
            // Muon's iteration multiplies what rounding leaves of a matrix that is nearly of rank one.
            assert!((found - expected).abs() < 1e-4, "{update:?}: {found}, expected {expected}");
        }
    }
    Ok(())
}

#[test]
fn a_bounded_parameter_stops_at_its_bound_and_comes_back() -> Result<()> {
    for device in [device(), Device::cpu()] {
        for dtype in [DType::F32, DType::BF16] {
            let mut builder = ParamBuilder::new();
            let id = builder.add_bounded("scale", 4.0, [0.0, 4.5])?;
            let mut params = builder.build(&device, dtype, 0)?;
            let settings = AdamW { average: Some(0.5), ..AdamW::default() };
            let mut optimizer = Optimizer::new(&params, settings)?;
            let step = |params: &mut Params, optimizer: &mut Optimizer, towards: f64| -> Result<[f64; 2]> {
                let graph = Graph::training(params, 0);
                let loss = ops::scale(&ops::sum(&graph.param(id))?, -towards)?;
                graph.backward(&loss, optimizer.gradients())?;
                drop((graph, loss));
                let before = device.downloads();
                optimizer.step(params, 1.0)?;
                assert!(device.downloads() <= before + 1, "the bound is not looked up on the host");
                Ok([params.master(id).item()?, params.tensor(id).item()?])
            };
            for _ in 0..3 {
                assert_eq!(step(&mut params, &mut optimizer, 1.0)?, [4.5; 2], "{dtype}");
            }
            // A state from beyond the bound is brought back; the gradient there is not lost.
            let state = optimizer.state(&params).into_iter();
            let state = state.map(|(name, value)| Ok((name, value.copy()?)));
            let state = state.collect::<Result<Vec<(String, Tensor)>>>()?;
            let beyond = |name: &str| match name {
                "master.scale" | "average.scale" => Tensor::full(&device, DType::F32, [1], 9.0),
                other => state.iter().find(|(name, _)| name == other).expect(other).1.copy(),
            };
            let mut again = Optimizer::new(&params, settings)?;
            again.restore(&mut params, 3, beyond)?;
            assert_eq!(params.master(id).item()?, 4.5);
            again.swap_average(&mut params)?;
            assert_eq!(params.master(id).item()?, 4.5, "the average");
            again.swap_average(&mut params)?;
            let mut last = 4.5;
            for _ in 0..40 {
                last = step(&mut params, &mut again, -1.0)?[0];
            }
            assert_eq!(last, 0.0, "{dtype}: it comes down to the other bound");
        }
    }
    Ok(())
}

//! A step is refused when anything on the way to the loss is NaN, in every type, and the parameters stay as they were.

use engine::ops::{self, Attend};
use engine::{AdamW, DType, Device, Error, Graph, Init, Optimizer, ParamBuilder, Result, Tensor};

#[test]
fn nan_scores_stop_the_step() -> Result<()> {
    for dtype in [DType::F32, DType::BF16, DType::F64] {
        let mut builder = ParamBuilder::new();
        // Queries alone are broken: keys and values still give every softmax something to average.
        let query = builder.add("query", [8, 8], Init::Constant(f64::NAN))?;
        let [key, value] = ["key", "value"].map(|name| builder.add(name, [8, 8], Init::Normal(0.5)));
        let (key, value) = (key?, value?);
        let mut params = builder.build(&Device::cpu(), dtype, 1)?;
        let before = params.tensor(value).to_f64()?;
        let mut optimizer = Optimizer::new(&params, AdamW::default())?;
        let graph = Graph::training(&params, 0);
        let values: Vec<f64> = (0..40).map(|i| (i as f64 * 0.7).sin()).collect();
        let x = graph.input(Tensor::from_slice(&Device::cpu(), &values, [1, 5, 8])?.cast(dtype)?);
        let head = |id| ops::reshape(&ops::linear(&x, &graph.param(id), None)?, [1, 5, 1, 8]);
        let seen = ops::attention(&head(query)?, &head(key)?, &head(value)?, Attend::full())?;
        let loss = ops::sum(&seen)?;
        graph.backward(&loss, optimizer.gradients())?;
        assert!(loss.tensor().item()?.is_nan(), "{dtype}");
        let refused = optimizer.step(&mut params, 0.1);
        assert!(matches!(&refused, Err(Error::NotFinite { name }) if name == "query"), "{dtype}: {refused:?}");
        assert_eq!(params.tensor(value).to_f64()?, before, "{dtype}");
    }
    Ok(())
}

//! Times training steps of the models in `models.py` in burn on the CPU: forward, backward and AdamW. In bf16 everything
//! is stored in it, and matrices are still multiplied in f32. Takes and prints what `lenslet bench step --json` does.

mod model;

use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::prelude::*;
use burn::tensor::{Distribution, FloatDType};
use model::{Shape, Vlm};
use std::time::Instant;

const WARM_UP: usize = 3;
const LEARNING_RATE: f64 = 1e-4;

struct Options {
    shape: Shape,
    dtype: FloatDType,
    threads: usize,
    steps: usize,
}

impl Options {
    /// From `--name value` pairs.
    fn read() -> Result<Options, String> {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let value = |name: &str, default: &str| {
            let pair = args
                .chunks_exact(2)
                .find(|pair| pair[0].strip_prefix("--") == Some(name));
            pair.map_or(default, |pair| &pair[1]).to_owned()
        };
        let number =
            |name: &str, default: &str| value(name, default).parse().map_err(|_| format!("--{name}: a number"));
        let (size, dtype) = (value("size", "S"), value("dtype", "f32"));
        let dtype = match dtype.as_str() {
            "f32" => FloatDType::F32,
            "bf16" => FloatDType::BF16,
            _ => return Err(format!("--dtype {dtype}: f32 or bf16")),
        };
        let shape = Shape::named(&size).ok_or(format!("--size {size}: one of S, M and L"))?;
        Ok(Options {
            shape,
            dtype,
            threads: number("threads", "1")?,
            steps: number("steps", "5")?,
        })
    }
}

/// A batch of noise, and what trains on it.
struct Training {
    model: Vlm,
    optimizer: ModuleOptimizer,
    pixels: Tensor<4>,
    ids: Tensor<2, Int>,
}

impl Training {
    fn new(shape: &Shape, dtype: FloatDType) -> Training {
        let mut device = Device::flex();
        device.configure(dtype).expect("a type that it has");
        let device = device.autodiff();
        device.seed(0);
        let pixels = [shape.batch, 3, shape.image, shape.image];
        Training {
            model: Vlm::new(shape, &device),
            optimizer: AdamWConfig::new()
                .with_beta_2(0.98)
                .with_epsilon(1e-8)
                .with_weight_decay(0.05)
                .init(),
            pixels: Tensor::random(pixels, Distribution::Uniform(-1.0, 1.0), &device),
            ids: Tensor::random(
                [shape.batch, shape.text],
                Distribution::Uniform(0.0, shape.vocab as f64),
                &device,
            ),
        }
    }

    fn step(mut self) -> (Training, f32) {
        let loss = self.model.forward(self.pixels.clone(), self.ids.clone());
        let grads = GradientsParams::from_grads(loss.backward(), &self.model);
        self.model = self.optimizer.step(LEARNING_RATE, self.model, grads);
        (self, loss.into_scalar())
    }
}

/// The most memory that this process ever held.
fn peak_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let kib = status.lines().find_map(|line| {
        line.strip_prefix("VmHWM:")?
            .strip_suffix("kB")?
            .trim()
            .parse::<usize>()
            .ok()
    });
    kib.expect("VmHWM in kB") * 1024
}

fn main() {
    let options = Options::read().unwrap_or_else(|error| {
        eprintln!("burn-peer: {error}");
        std::process::exit(1);
    });
    // SAFETY: no other thread has been started that could read the environment.
    unsafe { std::env::set_var("RAYON_NUM_THREADS", options.threads.to_string()) }
    let mut training = Training::new(&options.shape, options.dtype);
    let mut samples = Vec::new();
    for step in 0..WARM_UP + options.steps {
        let start = Instant::now();
        let loss;
        (training, loss) = training.step();
        assert!(loss.is_finite(), "the loss is {loss}");
        if step >= WARM_UP {
            samples.push(format!("{:.3}", 1e3 * start.elapsed().as_secs_f64()));
        }
    }
    let (parameters, peak, samples) = (training.model.num_params(), peak_bytes(), samples.join(", "));
    println!(r#"{{"parameters": {parameters}, "peak_bytes": {peak}, "samples": [{samples}]}}"#);
}

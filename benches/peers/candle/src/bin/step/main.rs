//! Times training steps of the models in `models.py` in candle on the CPU: forward, backward and AdamW. Takes and prints
//! what `lenslet bench step --json` does.

mod model;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, VarBuilder, VarMap};
use model::{Shape, Vlm};
use std::time::Instant;

const WARM_UP: usize = 3;

struct Options {
    shape: Shape,
    dtype: DType,
    threads: usize,
    steps: usize,
}

impl Options {
    /// From `--name value` pairs.
    fn read() -> std::result::Result<Options, String> {
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
            "f32" => DType::F32,
            "bf16" => DType::BF16,
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
    optimizer: AdamW,
    parameters: usize,
    pixels: Tensor,
    ids: Tensor,
}

impl Training {
    fn new(shape: &Shape, dtype: DType) -> Result<Training> {
        let (weights, device) = (VarMap::new(), Device::Cpu);
        let model = Vlm::new(shape, VarBuilder::from_varmap(&weights, dtype, &device))?;
        let settings = ParamsAdamW {
            lr: 1e-4,
            beta1: 0.9,
            beta2: 0.98,
            eps: 1e-8,
            weight_decay: 0.05,
        };
        let ids: Vec<u32> = (0..shape.batch * shape.text)
            .map(|at| (at as u32).wrapping_mul(2_654_435_761) % shape.vocab as u32)
            .collect();
        Ok(Training {
            model,
            parameters: weights.all_vars().iter().map(|var| var.elem_count()).sum(),
            optimizer: AdamW::new(weights.all_vars(), settings)?,
            pixels: Tensor::rand(-1f32, 1.0, (shape.batch, 3, shape.image, shape.image), &device)?.to_dtype(dtype)?,
            ids: Tensor::from_vec(ids, (shape.batch, shape.text), &device)?,
        })
    }

    fn step(&mut self) -> Result<f32> {
        let loss = self.model.forward(&self.pixels, &self.ids)?;
        self.optimizer.backward_step(&loss)?;
        loss.to_dtype(DType::F32)?.to_scalar()
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

fn run(options: &Options) -> Result<()> {
    let mut training = Training::new(&options.shape, options.dtype)?;
    let mut samples = Vec::new();
    for step in 0..WARM_UP + options.steps {
        let start = Instant::now();
        let loss = training.step()?;
        assert!(loss.is_finite(), "the loss is {loss}");
        if step >= WARM_UP {
            samples.push(format!("{:.3}", 1e3 * start.elapsed().as_secs_f64()));
        }
    }
    let (parameters, peak, samples) = (training.parameters, peak_bytes(), samples.join(", "));
    println!(r#"{{"parameters": {parameters}, "peak_bytes": {peak}, "samples": [{samples}]}}"#);
    Ok(())
}

fn main() {
    let fail = |error: &dyn std::fmt::Display| -> ! {
        eprintln!("step: {error}");
        std::process::exit(1);
    };
    let options = Options::read().unwrap_or_else(|error| fail(&error));
    // SAFETY: no other thread has been started that could read the environment.
    unsafe { std::env::set_var("RAYON_NUM_THREADS", options.threads.to_string()) }
    run(&options).unwrap_or_else(|error| fail(&error));
}

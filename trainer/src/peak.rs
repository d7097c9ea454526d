//! How much arithmetic a device can do at the most: what MFU is a share of.

use crate::recipe::Precision;
use crate::session::dtype;
use anyhow::Result;
use engine::{DType, Device, Kind, Tensor};
use kernels::cuda::{Driver, driver};
use kernels::gemm::{Epilogue, Gemm, Layout, gemm};
use std::time::{Duration, Instant};

/// Dense peaks of GPUs in TFLOP/s, from their makers' data sheets: a part of the name, then bf16 with f32 sums, tf32, and
/// f32. The first that fits counts.
const GPUS: [(&str, [f64; 3]); 11] = [
    ("H100 PCIe", [756.0, 378.0, 51.0]),
    ("H100 NVL", [835.0, 417.5, 60.0]),
    ("H100", [989.4, 494.7, 66.9]),
    ("H200 NVL", [835.5, 417.5, 60.0]),
    ("H200", [989.4, 494.7, 66.9]),
    ("A100", [312.0, 156.0, 19.5]),
    ("A10G", [70.0, 35.0, 31.5]),
    ("L40S", [362.0, 183.0, 91.6]),
    ("L4", [121.0, 60.0, 30.3]),
    ("RTX 4090", [165.2, 82.6, 82.6]),
    ("RTX 3090", [71.0, 35.6, 35.6]),
];

/// Side of the matrices that a processor multiplies to show what it can.
const SIDE: usize = 768;
/// How long it does so.
const TIME: Duration = Duration::from_millis(200);

/// FLOP/s a device can do at the most in a type: of a GPU the data sheet's, by its name; of a processor what large matrix
/// products reach now, with as many threads as train. None where neither is known.
///
/// # Errors
/// When the processor has no memory for three matrices.
pub fn peak(device: &Device, precision: Precision) -> Result<Option<f64>> {
    match (device.kind(), driver()) {
        (Kind::Cpu, _) => measured(dtype(precision)).map(Some),
        (Kind::Cuda(ordinal), Driver::Found { gpus, .. }) => {
            Ok(gpus.get(ordinal).and_then(|gpu| of_gpu(&gpu.name, precision)))
        }
        _ => Ok(None),
    }
}

fn of_gpu(name: &str, precision: Precision) -> Option<f64> {
    let (_, [bf16, tf32, f32]) = GPUS.iter().find(|(part, _)| name.contains(part))?;
    let tera = match precision {
        Precision::Bf16 => bf16,
        Precision::Tf32 => tf32,
        Precision::F32 => f32,
    };
    Some(tera * 1e12)
}

/// The quickest of the products that fit into [`TIME`].
fn measured(dtype: DType) -> Result<f64> {
    let device = Device::cpu();
    let full = |value: f64| Tensor::full(&device, dtype, [SIDE * SIDE], value);
    let (a, b, mut c) = (full(0.5)?, full(0.25)?, full(0.0)?);
    let product = Gemm::new(Layout::Nt, SIDE, SIDE, SIDE);
    let (begin, mut best) = (Instant::now(), f64::INFINITY);
    while begin.elapsed() < TIME {
        let start = Instant::now();
        gemm(product, a.view(), b.view(), &mut c.view_mut()?, Epilogue::default())?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(2.0 * (SIDE as f64).powi(3) / best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_known_by_its_name_and_an_unknown_one_has_no_peak() {
        assert_eq!(of_gpu("NVIDIA H100 80GB HBM3", Precision::Bf16), Some(989.4e12));
        assert_eq!(of_gpu("NVIDIA H100 PCIe", Precision::Bf16), Some(756e12));
        assert_eq!(of_gpu("NVIDIA A100-SXM4-80GB", Precision::Tf32), Some(156e12));
        assert_eq!(of_gpu("NVIDIA L40S", Precision::F32), Some(91.6e12));
        assert_eq!(of_gpu("GeForce 256", Precision::F32), None);
    }

    #[test]
    fn a_processor_is_measured_quickly_and_others_are_not_guessed() {
        let begin = Instant::now();
        let flops = peak(&Device::cpu(), Precision::F32).unwrap().unwrap();
        assert!(flops > 1e8 && flops < 1e15, "{flops}");
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
        assert_eq!(peak(&Device::trace(), Precision::F32).unwrap(), None);
    }
}

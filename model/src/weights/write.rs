//! Writing safetensors.

use crate::error::{Result, at};
use crate::files::write_atomically;
use engine::{DType, Tensor};
use std::io::{BufWriter, Write};
use std::path::Path;

/// Writes named tensors and free texts (`metadata`) as a safetensors file.
pub fn write_tensors(path: &Path, tensors: &[(String, Tensor)], metadata: &[(&str, &str)]) -> Result<()> {
    let mut header = serde_json::Map::new();
    let texts = metadata.iter().map(|(k, v)| (k.to_string(), (*v).into()));
    header.insert("__metadata__".into(), serde_json::Value::Object(texts.collect()));
    let mut start = 0;
    for (name, tensor) in tensors {
        let end = start + tensor.shape().elements() * tensor.dtype().size();
        let entry = serde_json::json!({
            "dtype": tag(tensor.dtype()),
            "shape": tensor.shape().to_vec(),
            "data_offsets": [start, end],
        });
        header.insert(name.clone(), entry);
        start = end;
    }
    let mut header = serde_json::Value::Object(header).to_string().into_bytes();
    // The data starts at a multiple of 8 bytes, as readers that map the file like it.
    header.resize(header.len().next_multiple_of(8), b' ');
    write_atomically(path, |file| {
        let mut out = BufWriter::new(file);
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for (_, tensor) in tensors {
            out.write_all(&bytes(tensor).map_err(std::io::Error::other)?)?;
        }
        out.flush()
    })
    .map_err(at(path))
}

fn tag(dtype: DType) -> &'static str {
    match dtype {
        DType::F64 => "F64",
        DType::F32 => "F32",
        DType::BF16 => "BF16",
        DType::F16 => "F16",
        DType::I32 => "I32",
        DType::U8 => "U8",
    }
}

fn bytes(tensor: &Tensor) -> engine::Result<Vec<u8>> {
    Ok(match tensor.dtype() {
        DType::F64 => tensor.to_vec::<f64>()?.into_iter().flat_map(f64::to_le_bytes).collect(),
        DType::F32 => tensor.to_vec::<f32>()?.into_iter().flat_map(f32::to_le_bytes).collect(),
        DType::U8 => tensor.to_vec::<u8>()?,
        DType::I32 => tensor.to_vec::<i32>()?.into_iter().flat_map(i32::to_le_bytes).collect(),
        DType::BF16 => tensor
            .to_vec::<half::bf16>()?
            .into_iter()
            .flat_map(half::bf16::to_le_bytes)
            .collect(),
        DType::F16 => tensor
            .to_vec::<half::f16>()?
            .into_iter()
            .flat_map(half::f16::to_le_bytes)
            .collect(),
    })
}

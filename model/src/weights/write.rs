//! Writing safetensors.

use crate::error::{Result, at};
use crate::files::write_atomically;
use engine::{DType, Shape, Tensor};
use serde_json::{Value, json};
use std::io::{BufWriter, Write};
use std::path::Path;

/// A tensor to be written. Its numbers are asked for when its turn comes, so that a file never lies in memory as a whole.
pub struct Entry<'p> {
    /// Its name in the file.
    pub name: String,
    /// The type of its numbers.
    pub dtype: DType,
    /// Its sizes.
    pub shape: Shape,
    /// Hands out its numbers: tensors of that type that lie in the file one after another.
    pub parts: Parts<'p>,
}

/// What hands tensors to a file, one after another.
pub type Parts<'p> = Box<dyn Fn(&mut dyn FnMut(&Tensor) -> Result<()>) -> Result<()> + 'p>;

impl<'p> Entry<'p> {
    /// A tensor as it is.
    pub fn new(name: impl Into<String>, tensor: Tensor) -> Entry<'p> {
        Entry {
            name: name.into(),
            dtype: tensor.dtype(),
            shape: tensor.shape(),
            parts: Box::new(move |out| out(&tensor)),
        }
    }

    fn bytes(&self) -> usize {
        self.shape.elements() * self.dtype.size()
    }
}

/// Writes tensors to `model.safetensors` in `folder` or, where they are larger than `most` bytes together, to shards of at
/// most so many (a tensor is never cut), with `model.safetensors.index.json` to say what is where.
pub fn write_shards(folder: &Path, entries: &[Entry<'_>], most: usize) -> Result<()> {
    let mut shards: Vec<&[Entry<'_>]> = Vec::new();
    let (mut start, mut size) = (0, 0);
    for (i, entry) in entries.iter().enumerate() {
        if i > start && size + entry.bytes() > most {
            shards.push(&entries[start..i]);
            (start, size) = (i, 0);
        }
        size += entry.bytes();
    }
    shards.push(&entries[start..]);
    if let [single] = shards[..] {
        return write_tensors(&folder.join("model.safetensors"), single, PYTORCH);
    }
    let mut places = serde_json::Map::new();
    for (number, shard) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", number + 1, shards.len());
        write_tensors(&folder.join(&name), shard, PYTORCH)?;
        places.extend(shard.iter().map(|entry| (entry.name.clone(), Value::from(name.as_str()))));
    }
    let total: usize = entries.iter().map(Entry::bytes).sum();
    let index = json!({ "metadata": { "total_size": total }, "weight_map": places });
    let path = folder.join("model.safetensors.index.json");
    write_atomically(&path, |file| writeln!(file, "{index:#}")).map_err(at(&path))
}

/// What `transformers` wants to find in a file's header.
pub const PYTORCH: &[(&str, &str)] = &[("format", "pt")];

/// Writes tensors and free texts (`metadata`) as a safetensors file.
pub fn write_tensors(path: &Path, entries: &[Entry<'_>], metadata: &[(&str, &str)]) -> Result<()> {
    let mut header = serde_json::Map::new();
    let texts = metadata.iter().map(|(k, v)| (k.to_string(), (*v).into()));
    header.insert("__metadata__".into(), Value::Object(texts.collect()));
    let mut start = 0;
    for entry in entries {
        let end = start + entry.bytes();
        let place = json!({ "dtype": tag(entry.dtype), "shape": entry.shape.to_vec(), "data_offsets": [start, end] });
        header.insert(entry.name.clone(), place);
        start = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    // The data starts at a multiple of 8 bytes, as readers that map the file like it.
    header.resize(header.len().next_multiple_of(8), b' ');
    write_atomically(path, |file| {
        let mut out = BufWriter::new(file);
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for entry in entries {
            let mut written = 0;
            let write = &mut |part: &Tensor| {
                let bytes = part.to_bytes()?;
                written += bytes.len();
                out.write_all(&bytes).map_err(at(path))
            };
            (entry.parts)(write).map_err(std::io::Error::other)?;
            if written != entry.bytes() {
                let message = format!("tensor `{}`: {written} bytes of {}", entry.name, entry.bytes());
                return Err(std::io::Error::other(message));
            }
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

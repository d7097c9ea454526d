//! Reading safetensors: files from anywhere, trusted in nothing.
//!
//! Read with plain reads, not mapped: a file that shrinks meanwhile is an error, not a signal.

use crate::error::{Error, Result, at};
use engine::{DType, Device, Shape, Stored, Tensor};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Largest header read, in bytes.
const MAX_HEADER: u64 = 16 << 20;
/// Most tensors in a file.
const MAX_TENSORS: usize = 100_000;
/// Most dimensions of a tensor: what a [`Shape`] holds.
const MAX_RANK: usize = 5;

/// An open safetensors file whose header has been checked.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    file: File,
    /// Where the data begins.
    data: u64,
    entries: BTreeMap<String, Entry>,
    metadata: HashMap<String, String>,
}

#[derive(Debug)]
struct Entry {
    dtype: DType,
    shape: Vec<usize>,
    start: u64,
    bytes: usize,
}

impl TensorFile {
    /// Opens a file and checks its whole header.
    ///
    /// # Errors
    /// When it cannot be read; the header is too large, not JSON, or names a tensor twice; a tensor has an unknown
    /// type, too many dimensions or a size that does not fit its place; places overlap, leave holes or pass the end.
    pub fn open(path: &Path) -> Result<TensorFile> {
        let bad = |message: String| Error::File {
            path: path.to_path_buf(),
            message,
        };
        let mut file = File::open(path).map_err(at(path))?;
        let length = file.metadata().map_err(at(path))?.len();
        let mut size = [0; 8];
        file.read_exact(&mut size)
            .map_err(|_| bad(format!("{length} bytes are too few for a safetensors file")))?;
        let size = u64::from_le_bytes(size);
        if size > MAX_HEADER || size + 8 > length {
            let message = format!("a header of {size} bytes in a file of {length}; at most {MAX_HEADER} are read");
            return Err(bad(message));
        }
        let mut header = vec![0; size as usize];
        file.read_exact(&mut header).map_err(at(path))?;
        let header: Header = serde_json::from_slice(&header).map_err(|e| bad(format!("header: {e}")))?;
        let entries = checked(path, header.tensors, length - size - 8)?;
        Ok(TensorFile {
            path: path.to_path_buf(),
            file,
            data: size + 8,
            entries,
            metadata: header.metadata,
        })
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// A tensor's sizes.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|entry| &entry.shape[..])
    }

    /// The free texts in the header.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    /// Reads a tensor in the file's type.
    ///
    /// # Errors
    /// When there is none of this name, or the file got shorter since it was opened.
    pub fn tensor(&mut self, name: &str, device: &Device) -> Result<Tensor> {
        let Some(entry) = self.entries.get(name) else {
            return Err(self.bad_tensor(name, "is not in the file".into()));
        };
        let mut bytes = vec![0; entry.bytes];
        let place = SeekFrom::Start(self.data + entry.start);
        let read = self.file.seek(place).and_then(|_| self.file.read_exact(&mut bytes));
        read.map_err(|e| self.bad_tensor(name, e.to_string()))?;
        let shape = Shape::new(&entry.shape);
        Ok(match entry.dtype {
            DType::F64 => numbers(device, &bytes, shape, f64::from_le_bytes)?,
            DType::F32 => numbers(device, &bytes, shape, f32::from_le_bytes)?,
            DType::BF16 => numbers(device, &bytes, shape, half::bf16::from_le_bytes)?,
            DType::F16 => numbers(device, &bytes, shape, half::f16::from_le_bytes)?,
            DType::I32 => numbers(device, &bytes, shape, i32::from_le_bytes)?,
            DType::U8 => Tensor::from_slice(device, &bytes, shape)?,
        })
    }

    fn bad_tensor(&self, name: &str, message: String) -> Error {
        Error::Tensor {
            path: self.path.clone(),
            tensor: name.to_string(),
            message,
        }
    }
}

fn numbers<T: Stored, const N: usize>(
    device: &Device,
    bytes: &[u8],
    shape: Shape,
    read: impl Fn([u8; N]) -> T,
) -> Result<Tensor> {
    let (chunks, _) = bytes.as_chunks::<N>();
    let values: Vec<T> = chunks.iter().map(|chunk| read(*chunk)).collect();
    Ok(Tensor::from_slice(device, &values, shape)?)
}

/// The header's tensors, each in its place in `length` bytes of data.
fn checked(path: &Path, tensors: Vec<(String, RawEntry)>, length: u64) -> Result<BTreeMap<String, Entry>> {
    let mut places: Vec<(u64, u64)> = Vec::with_capacity(tensors.len());
    let mut entries = BTreeMap::new();
    for (name, raw) in tensors {
        let entry = raw.check(length).map_err(|message| Error::Tensor {
            path: path.to_path_buf(),
            tensor: name.clone(),
            message,
        })?;
        places.push((entry.start, entry.start + entry.bytes as u64));
        entries.insert(name, entry);
    }
    places.sort_unstable();
    let ends = places.iter().map(|place| place.1).chain([length]);
    let starts = [0].into_iter().chain(ends);
    for (expected, found) in starts.zip(places.iter().map(|place| place.0).chain([length])) {
        if expected != found {
            let message =
                format!("tensors overlap or leave a hole: byte {expected} of the data is followed by {found}");
            return Err(Error::File {
                path: path.to_path_buf(),
                message,
            });
        }
    }
    Ok(entries)
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

impl RawEntry {
    fn check(self, length: u64) -> std::result::Result<Entry, String> {
        let [start, end] = self.data_offsets;
        if start > end || end > length {
            return Err(format!("lies at bytes {start}..{end} of {length}"));
        }
        if self.shape.len() > MAX_RANK {
            return Err(format!("{} dimensions, at most {MAX_RANK} are read", self.shape.len()));
        }
        let dtype = match self.dtype.as_str() {
            "F64" => DType::F64,
            "F32" => DType::F32,
            "BF16" => DType::BF16,
            "F16" => DType::F16,
            "I32" => DType::I32,
            "U8" => DType::U8,
            other => return Err(format!("type {other}, expected F64, F32, BF16, F16, I32 or U8")),
        };
        let bytes = self
            .shape
            .iter()
            .try_fold(dtype.size() as u64, |n, &d| n.checked_mul(d));
        if bytes != Some(end - start) {
            return Err(format!(
                "shape {:?} of {dtype} does not fill {} bytes",
                self.shape,
                end - start
            ));
        }
        let shape = self
            .shape
            .into_iter()
            .map(usize::try_from)
            .collect::<std::result::Result<_, _>>();
        Ok(Entry {
            dtype,
            shape: shape.map_err(|_| "a dimension too large for this machine")?,
            start,
            bytes: usize::try_from(end - start).map_err(|_| "too large for this machine")?,
        })
    }
}

/// The header as written: serde's maps would let a later duplicate win silently.
struct Header {
    tensors: Vec<(String, RawEntry)>,
    metadata: HashMap<String, String>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Header, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a map of tensors")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> std::result::Result<Header, M::Error> {
        let mut seen = std::collections::HashSet::new();
        let (mut tensors, mut metadata) = (Vec::new(), HashMap::new());
        while let Some(name) = map.next_key::<String>()? {
            if !seen.insert(name.clone()) {
                return Err(M::Error::custom(format!("`{name}` appears twice")));
            }
            if tensors.len() == MAX_TENSORS {
                return Err(M::Error::custom(format!("more than {MAX_TENSORS} tensors")));
            }
            match name.as_str() {
                "__metadata__" => metadata = map.next_value()?,
                _ => tensors.push((name, map.next_value()?)),
            }
        }
        Ok(Header { tensors, metadata })
    }
}

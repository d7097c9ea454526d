//! Reading safetensors: files from anywhere, trusted in nothing but that they keep their length while they are open.

use crate::error::{Error, Result, at};
use crate::files::{open_file, other_kind};
use engine::{DType, Device, Shape, Tensor};
use memmap2::Mmap;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Largest header read, in bytes.
const MAX_HEADER: u64 = 16 << 20;
/// Most tensors in a file.
const MAX_TENSORS: usize = 100_000;
/// Most dimensions of a tensor: what a [`Shape`] holds.
const MAX_RANK: usize = 5;
/// Types a file may hold, with the bytes of a number; those without a [`DType`] can be passed over but not read.
const TYPES: [(&str, usize, Option<DType>); 13] = [
    ("F64", 8, Some(DType::F64)),
    ("F32", 4, Some(DType::F32)),
    ("BF16", 2, Some(DType::BF16)),
    ("F16", 2, Some(DType::F16)),
    ("I32", 4, Some(DType::I32)),
    ("U8", 1, Some(DType::U8)),
    ("I64", 8, None),
    ("U64", 8, None),
    ("U32", 4, None),
    ("I16", 2, None),
    ("U16", 2, None),
    ("I8", 1, None),
    ("BOOL", 1, None),
];

/// An open safetensors file whose header has been checked. Its data is mapped: a page is read when it is first touched.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    map: Mmap,
    /// Where the data begins.
    data: usize,
    entries: BTreeMap<String, Entry>,
    metadata: HashMap<String, String>,
}

/// A tensor as it lies in a file.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'f> {
    /// The file.
    pub path: &'f Path,
    /// The type of its numbers.
    pub dtype: DType,
    /// Its sizes.
    pub shape: &'f [usize],
    /// Its numbers, row-major and little-endian, at any address.
    pub bytes: &'f [u8],
}

#[derive(Debug)]
struct Entry {
    tag: &'static str,
    dtype: Option<DType>,
    shape: Vec<usize>,
    start: usize,
    bytes: usize,
}

impl TensorFile {
    /// Opens a file and checks its whole header. While it is open nobody may cut it short: the system answers a touch
    /// beyond a mapped file's end with a signal (SIGBUS). Replacing it by renaming another over it is fine.
    ///
    /// # Errors
    /// When it cannot be read; the header is too large, not JSON, or names a tensor twice; a tensor has an unknown
    /// type, too many dimensions or a size that does not fit its place; places overlap, leave holes or pass the end.
    pub fn open(path: &Path) -> Result<TensorFile> {
        let bad = |message: String| Error::File { path: path.to_path_buf(), message };
        let file = open_file(path).map_err(at(path))?;
        let length = file.metadata().map_err(at(path))?.len();
        if length < 8 {
            return Err(bad(format!("{length} bytes are too few for a safetensors file: download it again")));
        }
        // SAFETY: the map is read only, and its bytes are plain numbers, valid whatever they are. Another process that
        // shortens the file meanwhile ends this one by a signal, as documented; writers of ours rename whole files.
        let map = unsafe { Mmap::map(&file) }.map_err(at(path))?;
        let mut size = [0; 8];
        size.copy_from_slice(&map[..8]);
        let size = u64::from_le_bytes(size);
        if size > MAX_HEADER || size + 8 > map.len() as u64 {
            let message = format!("a header of {size} bytes in a file of {length}; at most {MAX_HEADER} are read");
            return Err(bad(other_kind(&map).unwrap_or(message)));
        }
        let data = size as usize + 8;
        let header: Header = serde_json::from_slice(&map[8..data]).map_err(|e| bad(format!("header: {e}")))?;
        let entries = checked(path, header.tensors, map.len() - data)?;
        Ok(TensorFile { path: path.to_path_buf(), map, data, entries, metadata: header.metadata })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
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

    /// A tensor's numbers where they lie.
    ///
    /// # Errors
    /// When there is none of this name, or it is of a type that no model computes with.
    pub fn stored(&self, name: &str) -> Result<Stored<'_>> {
        let bad = |message: String| Error::Tensor { path: self.path.clone(), tensor: name.to_string(), message };
        let entry = self.entries.get(name).ok_or_else(|| bad("is not in the file".into()))?;
        let unread = || bad(format!("is of type {}, expected F64, F32, BF16 or F16", entry.tag));
        Ok(Stored {
            path: &self.path,
            dtype: entry.dtype.ok_or_else(unread)?,
            shape: &entry.shape,
            bytes: &self.map[self.data + entry.start..][..entry.bytes],
        })
    }

    /// Reads a tensor in the file's type.
    pub fn tensor(&self, name: &str, device: &Device) -> Result<Tensor> {
        let found = self.stored(name)?;
        Ok(Tensor::from_bytes(device, found.dtype, found.bytes, Shape::new(found.shape))?)
    }
}

/// The header's tensors, each in its place in `length` bytes of data.
fn checked(path: &Path, tensors: Vec<(String, RawEntry)>, length: usize) -> Result<BTreeMap<String, Entry>> {
    let mut places: Vec<(usize, usize)> = Vec::with_capacity(tensors.len());
    let mut entries = BTreeMap::new();
    for (name, raw) in tensors {
        let entry = raw.check(length).map_err(|message| Error::Tensor {
            path: path.to_path_buf(),
            tensor: name.clone(),
            message,
        })?;
        places.push((entry.start, entry.start + entry.bytes));
        entries.insert(name, entry);
    }
    places.sort_unstable();
    let ends = places.iter().map(|place| place.1).chain([length]);
    let starts = [0].into_iter().chain(ends);
    for (expected, found) in starts.zip(places.iter().map(|place| place.0).chain([length])) {
        if expected != found {
            let message =
                format!("tensors overlap or leave a hole: byte {expected} of the data is followed by {found}");
            return Err(Error::File { path: path.to_path_buf(), message });
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
    fn check(self, length: usize) -> std::result::Result<Entry, String> {
        let [start, end] = self.data_offsets;
        if start > end || end > length as u64 {
            return Err(format!("lies at bytes {start}..{end} of {length}: the file is cut short, download it again"));
        }
        if self.shape.len() > MAX_RANK {
            return Err(format!("{} dimensions, at most {MAX_RANK} are read", self.shape.len()));
        }
        let Some(&(tag, size, dtype)) = TYPES.iter().find(|(tag, ..)| *tag == self.dtype) else {
            let known = TYPES.map(|(tag, ..)| tag).join(", ");
            return Err(format!("type {}, expected one of {known}", self.dtype));
        };
        let filled = self.shape.iter().try_fold(size as u64, |n, &d| n.checked_mul(d));
        if filled != Some(end - start) {
            let place = end - start;
            return Err(format!("shape {:?} of {tag} does not fill {place} bytes", self.shape));
        }
        let shape = self.shape.into_iter().map(usize::try_from);
        Ok(Entry {
            tag,
            dtype,
            shape: shape
                .collect::<std::result::Result<_, _>>()
                .map_err(|_| "a dimension too large for this machine")?,
            start: start as usize,
            bytes: (end - start) as usize,
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

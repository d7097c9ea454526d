//! Kernels as source: a family's .cu file with the definitions that specialise it, and the arguments of a launch.

use super::families::SOURCES;
use crate::{DType, Error, Result, View, ViewMut};
use std::borrow::Cow;
use std::path::PathBuf;

/// Families whose instructions older GPUs lack, and the first architecture that has them. The others run from sm_80 on.
const NEWER: &[(&str, u32)] = &[("golden_bulk", 90)];

/// One specialisation of a family's source: what is compiled at a time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Module {
    family: &'static str,
    /// The source of a kernel that is none of the families'.
    text: Option<String>,
    defines: Vec<(&'static str, String)>,
}

impl Module {
    /// The source `<family>.cu` of the list.
    pub(crate) fn new(family: &'static str) -> Module {
        Module { family, text: None, defines: Vec::new() }
    }

    /// A kernel of one's own: `text` as a source named `name`, without its ending. It starts with `#include "prelude.cuh"`,
    /// keeps the rules stated there, and is run by [`launch_own`](super::launch_own).
    pub fn from_source(name: &'static str, text: impl Into<String>) -> Module {
        Module { family: name, text: Some(text.into()), defines: Vec::new() }
    }

    /// Defines a macro.
    pub fn define(mut self, name: &'static str, value: impl ToString) -> Module {
        self.defines.push((name, value.to_string()));
        self
    }

    /// Defines `name` as the CUDA type that stores `dtype`.
    pub(crate) fn stored_as(self, name: &'static str, dtype: DType) -> Module {
        self.define(
            name,
            match dtype {
                DType::F64 => "double",
                DType::F32 => "float",
                DType::BF16 => "bf16",
                DType::F16 => "f16",
                DType::I32 => "int",
                DType::U8 => "u8",
            },
        )
    }

    /// The family's name.
    pub fn family(&self) -> &'static str {
        self.family
    }

    /// Whether its instructions exist on an architecture such as `sm_90a`.
    pub fn runs_on(&self, architecture: &str) -> bool {
        let number = architecture.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u32>();
        let oldest = NEWER.iter().find(|(family, _)| *family == self.family);
        oldest.is_none_or(|(_, oldest)| number.is_ok_and(|number| number >= *oldest))
    }

    /// What it was specialised to, as `NAME=value`.
    pub fn specialised_to(&self) -> String {
        let defines = self.defines.iter().map(|(name, value)| format!("{name}={value}"));
        defines.collect::<Vec<_>>().join(" ")
    }

    /// The source's file name.
    pub fn file(&self) -> String {
        format!("{}.cu", self.family)
    }

    /// The source's file and all it may include, by name. From the folder that `LENSLET_CUDA_SOURCES` names, if it names
    /// one, in which they lie as in `kernels/src` or side by side, save a source that came as text: kernels can be changed
    /// without building the program anew.
    ///
    /// # Errors
    /// A file of that folder that cannot be read.
    pub(super) fn sources(&self) -> Result<Vec<(String, Cow<'_, str>)>> {
        let named = std::env::var_os("LENSLET_CUDA_SOURCES").filter(|folder| !folder.is_empty());
        let folder = named.map(PathBuf::from);
        let read = |(place, embedded): &(&'static str, &'static str)| {
            let name = file_name(place).to_owned();
            let Some(folder) = &folder else {
                return Ok((name, Cow::Borrowed(*embedded)));
            };
            let path = [folder.join(place), folder.join(&name)];
            let path = path.iter().find(|path| path.exists()).unwrap_or(&path[1]);
            let text = std::fs::read_to_string(path).map_err(|error| Error::Kernel {
                kernel: "",
                module: self.to_string(),
                message: format!("LENSLET_CUDA_SOURCES: {}: {error}", path.display()),
            })?;
            Ok((name, text.into()))
        };
        let source = match &self.text {
            Some(text) => Ok((self.file(), text.into())),
            None => read(self.listed()),
        };
        let headers = SOURCES.iter().filter(|(place, _)| place.ends_with(".cuh"));
        std::iter::once(source).chain(headers.map(read)).collect()
    }

    /// The source's place in the list, for one that did not come as text.
    fn listed(&self) -> &'static (&'static str, &'static str) {
        let found = SOURCES.iter().find(|(place, _)| file_name(place) == self.file());
        found.expect("launches name families that are in the list")
    }

    /// Where the source lies in the repository.
    pub fn path(&self) -> String {
        match self.text {
            Some(_) => self.file(),
            None => format!("kernels/src/{}", self.listed().0),
        }
    }

    /// The definitions as a compiler takes them.
    pub(super) fn options(&self) -> impl Iterator<Item = String> {
        self.defines.iter().map(|(name, value)| format!("-D{name}={value}"))
    }
}

impl std::fmt::Display for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.file(), self.specialised_to())
    }
}

fn file_name(place: &str) -> &str {
    place.rsplit('/').next().unwrap_or(place)
}

/// How many threads a kernel runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Blocks along x, y and z.
    pub blocks: [usize; 3],
    /// Threads of a block.
    pub threads: usize,
    /// Bytes of dynamic shared memory of a block.
    pub shared: usize,
}

impl Grid {
    /// `blocks` blocks of `threads` threads.
    pub fn new(blocks: usize, threads: usize) -> Grid {
        Grid { blocks: [blocks, 1, 1], threads, shared: 0 }
    }

    /// Enough threads of 256 for loops over `elements` that take `each` at a time, and no more than keep a large GPU busy.
    pub(crate) fn over(elements: usize, each: usize) -> Grid {
        const THREADS: usize = 256;
        const MOST: usize = 4096;
        Grid::new(elements.div_ceil(each * THREADS).min(MOST), THREADS)
    }
}

/// Elements of `size` bytes that are loaded at a time: 16 bytes of them where they divide every length and every argument
/// starts at a whole vector, else one.
pub(crate) fn width(size: usize, lengths: &[usize], pointers: &[Arg]) -> usize {
    let wide = 16 / size;
    let aligned = pointers.iter().all(|pointer| pointer.bits.is_multiple_of(16));
    match aligned && lengths.iter().all(|length| length.is_multiple_of(wide)) {
        true => wide,
        false => 1,
    }
}

/// Memory an argument points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) address: u64,
    pub(crate) bytes: usize,
    pub(crate) writable: bool,
}

/// One argument of a launch: made from a number, a [`View`] or a [`ViewMut`], or from a view that may be absent.
#[derive(Debug, Clone, Copy)]
pub struct Arg {
    /// The value in its lowest bytes.
    pub(crate) bits: u64,
    /// Its type: p pointer, i and I integers of 32 and 64 bits, f float.
    pub(crate) letter: u8,
    /// What a pointer points to.
    pub(crate) range: Option<Range>,
}

macro_rules! plain {
    ($($t:ty => $letter:literal, $bits:expr;)*) => {$(
        impl From<$t> for Arg {
            fn from(value: $t) -> Arg {
                let bits: fn($t) -> u64 = $bits;
                Arg { bits: bits(value), letter: $letter, range: None }
            }
        }
    )*};
}
plain! {
    i32 => b'i', |value| u64::from(value as u32);
    u32 => b'i', u64::from;
    i64 => b'I', |value| value as u64;
    u64 => b'I', |value| value;
    f32 => b'f', |value| u64::from(value.to_bits());
    f64 => b'd', f64::to_bits;
}

impl Arg {
    fn pointer(range: Range) -> Arg {
        // An empty view may lie anywhere; a null pointer shows where it is read all the same.
        let address = if range.bytes == 0 { 0 } else { range.address };
        Arg { bits: address, letter: b'p', range: Some(Range { address, ..range }) }
    }
}

impl From<View<'_>> for Arg {
    fn from(view: View) -> Arg {
        Arg::pointer(view.device_range(false))
    }
}

impl From<&ViewMut<'_>> for Arg {
    fn from(view: &ViewMut) -> Arg {
        Arg::pointer(view.device_range(true))
    }
}

impl From<&mut ViewMut<'_>> for Arg {
    fn from(view: &mut ViewMut) -> Arg {
        Arg::pointer(view.device_range(true))
    }
}

/// An argument that may be absent: a null pointer then.
impl<'a, T> From<Option<&'a T>> for Arg
where
    Arg: From<&'a T>,
{
    fn from(view: Option<&'a T>) -> Arg {
        let nothing = Range { address: 0, bytes: 0, writable: false };
        view.map_or(Arg::pointer(nothing), Arg::from)
    }
}

impl<'a> From<&'a View<'a>> for Arg {
    fn from(view: &'a View<'a>) -> Arg {
        Arg::from(*view)
    }
}

/// The arguments of a launch, in the kernel's order.
macro_rules! args {
    ($($arg:expr),* $(,)?) => { &[$($crate::gpu::Arg::from($arg)),*] };
}
pub(crate) use args;

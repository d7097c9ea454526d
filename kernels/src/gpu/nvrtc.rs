//! NVRTC, CUDA's compiler as a library: looked for at run time, versions 12 and 13, straight to machine code.
//!
//! Its own loader instead of cudarc's: that one neither looks into Python packages, where most people have NVRTC, nor
//! returns machine code, and it panics where a function is missing.

mod search;

use crate::gpu::cache::Key;
use libloading::Library;
use std::ffi::{CStr, CString, NulError, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

pub use search::NotFound;

/// The oldest version that knows every architecture the kernels are written for.
const OLDEST: u32 = 12;

/// Compilations wait for one another: NVRTC runs one at a time in a process anyway.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// `nvrtcProgram`.
type Program = *mut c_void;

/// Declares the functions and how to find them in a library.
macro_rules! functions {
    ($($name:ident($($kind:ty),*) -> $result:ty;)*) => {
        #[allow(non_snake_case)]
        struct Functions {
            $($name: unsafe extern "C" fn($($kind),*) -> $result,)*
        }

        impl Functions {
            /// # Safety
            /// The library is an NVRTC and stays loaded as long as the functions are called.
            unsafe fn load(library: &Library) -> Result<Functions, libloading::Error> {
                Ok(Functions {
                    // SAFETY: the signatures are those of nvrtc.h, the same in versions 12 and 13.
                    $($name: unsafe { *library.get(stringify!($name))? },)*
                })
            }
        }
    };
}

functions! {
    nvrtcVersion(*mut c_int, *mut c_int) -> c_int;
    nvrtcGetErrorString(c_int) -> *const c_char;
    nvrtcCreateProgram(*mut Program, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char) -> c_int;
    nvrtcDestroyProgram(*mut Program) -> c_int;
    nvrtcCompileProgram(Program, c_int, *const *const c_char) -> c_int;
    nvrtcGetProgramLogSize(Program, *mut usize) -> c_int;
    nvrtcGetProgramLog(Program, *mut c_char) -> c_int;
    nvrtcGetCUBINSize(Program, *mut usize) -> c_int;
    nvrtcGetCUBIN(Program, *mut c_char) -> c_int;
}

/// A loaded NVRTC.
pub struct Nvrtc {
    functions: Functions,
    version: (u32, u32),
    path: PathBuf,
    /// Unloaded after everything above is gone: the library, then what it loads by name on first use.
    _library: Library,
    _builtins: Option<Library>,
}

/// What is to be compiled.
#[derive(Debug, Clone)]
pub struct Source<'a> {
    /// The name in messages, such as `norm.cu`.
    pub name: &'a str,
    /// CUDA C++.
    pub text: &'a str,
    /// What it may include, as (name, text).
    pub headers: &'a [(&'a str, &'a str)],
    /// Options of its own, such as `-DROWS=64`.
    pub options: Vec<String>,
}

/// Machine code and what was said while making it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// The code, for the driver to load.
    pub cubin: Vec<u8>,
    /// The compiler's and assembler's words, for [`Report::parse`](super::ptxas::Report::parse).
    pub log: String,
}

/// A source that could not be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} does not compile for {architecture}: {reason}\n{log}")]
pub struct CompileError {
    /// The source's name.
    pub name: String,
    /// What it was compiled for.
    pub architecture: String,
    /// What failed.
    pub reason: String,
    /// The compiler's messages.
    pub log: String,
}

impl Source<'_> {
    /// All options, in the order they are passed.
    pub fn all_options(&self, architecture: &str) -> Vec<String> {
        let ours = ["--std=c++17", "--ptxas-options=-v"].map(String::from);
        let target = format!("--gpu-architecture={architecture}");
        std::iter::once(target).chain(ours).chain(self.options.iter().cloned()).collect()
    }

    /// Where a [`Cache`](super::cache::Cache) keeps this source compiled by the compiler of that
    /// [identity](Nvrtc::identity).
    pub fn key(&self, compiler: &str, architecture: &str) -> Key {
        let files: Vec<_> = std::iter::once((self.name, self.text)).chain(self.headers.iter().copied()).collect();
        Key::new(compiler, architecture, &self.all_options(architecture), &files)
    }
}

impl Nvrtc {
    /// The first NVRTC, version 12 or newer, in this order: `$LENSLET_NVRTC`, a library or its folder, and then nothing
    /// else; `$CUDA_PATH` and `$CUDA_HOME`; the packages of `python3`; `/usr/local/cuda*`; wherever the system looks for
    /// libraries. One newer than the driver, whose code may not load, comes last.
    ///
    /// # Errors
    /// [`NotFound`] lists everything looked at.
    pub fn find(driver_major: Option<u32>) -> Result<Nvrtc, NotFound> {
        search::find(&|name| std::env::var_os(name), driver_major)
    }

    /// Loads this library. `path` is a file, or a bare name for the system to find.
    fn open(path: &Path) -> Result<Nvrtc, String> {
        // Found by its name only in the folders the system knows, unless it is loaded already.
        let builtins = search::builtins(path).and_then(|sibling| {
            // SAFETY: it holds headers as data; its initialisers need nothing.
            unsafe { Library::new(sibling) }.ok()
        });
        // SAFETY: the library's initialisers need nothing and may run at any time.
        let library = unsafe { Library::new(path) }.map_err(in_full)?;
        // SAFETY: the library goes into the same structure as its functions and outlives them.
        let functions = unsafe { Functions::load(&library) }.map_err(in_full)?;
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both pointers are valid for one int.
        let code = unsafe { (functions.nvrtcVersion)(&mut major, &mut minor) };
        let version = (major.unsigned_abs(), minor.unsigned_abs());
        if code != 0 || version.0 < OLDEST {
            return Err(format!("it is NVRTC {major}.{minor}, expected {OLDEST} or newer"));
        }
        Ok(Nvrtc { functions, version, path: search::loaded_path(path), _library: library, _builtins: builtins })
    }

    /// Major and minor.
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// The library's file; its bare name where the system found it and does not tell where.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Text that changes when the compiler does: version, size and time of the library.
    pub fn identity(&self) -> String {
        let (major, minor) = self.version;
        let about = std::fs::metadata(&self.path).ok();
        let size = about.as_ref().map(|about| about.len());
        let time = about.and_then(|about| about.modified().ok());
        format!("nvrtc {major}.{minor} {size:?} {time:?}")
    }

    /// Compiles for an architecture with machine code, such as `sm_90a`.
    ///
    /// # Errors
    /// [`CompileError`] with the compiler's messages.
    pub fn compile(&self, source: &Source, architecture: &str) -> Result<Compiled, CompileError> {
        let failed = |(reason, log): (String, String)| CompileError {
            name: source.name.to_owned(),
            architecture: architecture.to_owned(),
            reason,
            log,
        };
        let texts = Texts::new(source, architecture)
            .map_err(|error| failed((format!("a text or an option holds a zero byte: {error}"), String::new())))?;
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        Unit::new(self, &texts).and_then(|unit| unit.compile(&texts.options)).map_err(failed)
    }

    /// The name NVRTC gives to a result.
    fn check(&self, code: c_int) -> Result<(), String> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: any code may be asked for; the answer is null or a constant of the library.
        let name = unsafe {
            let name = (self.functions.nvrtcGetErrorString)(code);
            (!name.is_null()).then(|| CStr::from_ptr(name))
        };
        Err(name.map_or(format!("code {code}"), |name| name.to_string_lossy().into_owned()))
    }
}

impl std::fmt::Debug for Nvrtc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nvrtc").field("version", &self.version).field("path", &self.path).finish_non_exhaustive()
    }
}

/// A loader's failure with the system's own words, which it keeps as its source.
fn in_full(error: libloading::Error) -> String {
    std::error::Error::source(&error).map_or(error.to_string(), |words| words.to_string())
}

/// A source's texts as C wants them.
struct Texts {
    name: CString,
    text: CString,
    header_names: Vec<CString>,
    header_texts: Vec<CString>,
    options: Vec<CString>,
}

impl Texts {
    fn new(source: &Source, architecture: &str) -> Result<Texts, NulError> {
        Ok(Texts {
            name: CString::new(source.name)?,
            text: CString::new(source.text)?,
            header_names: source.headers.iter().map(|h| CString::new(h.0)).collect::<Result<_, _>>()?,
            header_texts: source.headers.iter().map(|h| CString::new(h.1)).collect::<Result<_, _>>()?,
            options: source.all_options(architecture).into_iter().map(CString::new).collect::<Result<_, _>>()?,
        })
    }
}

fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    texts.iter().map(|text| text.as_ptr()).collect()
}

/// One program inside NVRTC; destroyed when dropped.
struct Unit<'a> {
    nvrtc: &'a Nvrtc,
    program: Program,
}

/// What failed, and the log.
type Failure = (String, String);

impl<'a> Unit<'a> {
    fn new(nvrtc: &'a Nvrtc, texts: &Texts) -> Result<Unit<'a>, Failure> {
        let mut program = std::ptr::null_mut();
        let (names, headers) = (pointers(&texts.header_names), pointers(&texts.header_texts));
        // SAFETY: every text ends in a zero byte and lives through the call, which copies it; there are as many names
        // as headers.
        let code = unsafe {
            let (name, text) = (texts.name.as_ptr(), texts.text.as_ptr());
            let (count, headers, names) = (headers.len() as c_int, headers.as_ptr(), names.as_ptr());
            (nvrtc.functions.nvrtcCreateProgram)(&mut program, text, name, count, headers, names)
        };
        nvrtc.check(code).map_err(|reason| (reason, String::new()))?;
        Ok(Unit { nvrtc, program })
    }

    fn compile(&self, options: &[CString]) -> Result<Compiled, Failure> {
        let options = pointers(options);
        // SAFETY: the program is live, and so are the options, through the call.
        let code = unsafe {
            let compile = self.nvrtc.functions.nvrtcCompileProgram;
            compile(self.program, options.len() as c_int, options.as_ptr())
        };
        let log = self.log();
        let cubin = self.nvrtc.check(code).and_then(|()| self.cubin());
        match cubin {
            Ok(cubin) => Ok(Compiled { cubin, log }),
            Err(reason) => Err((reason, log)),
        }
    }

    fn log(&self) -> String {
        let functions = &self.nvrtc.functions;
        let log = self.read(functions.nvrtcGetProgramLogSize, functions.nvrtcGetProgramLog);
        let log = log.unwrap_or_default();
        String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned()
    }

    fn cubin(&self) -> Result<Vec<u8>, String> {
        let functions = &self.nvrtc.functions;
        let cubin = self.read(functions.nvrtcGetCUBINSize, functions.nvrtcGetCUBIN)?;
        if cubin.is_empty() {
            return Err("no machine code came out: name a real architecture, sm_80 and not compute_80".into());
        }
        Ok(cubin)
    }

    fn read(
        &self,
        size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
        get: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    ) -> Result<Vec<u8>, String> {
        let mut bytes = 0;
        // SAFETY: the program is live, and `bytes` is valid for one size.
        self.nvrtc.check(unsafe { size(self.program, &mut bytes) })?;
        let mut buffer = vec![0_u8; bytes];
        // SAFETY: the buffer has the size just asked for, which is what the matching function writes.
        let code = unsafe { get(self.program, buffer.as_mut_ptr().cast()) };
        self.nvrtc.check(code)?;
        Ok(buffer)
    }
}

impl Drop for Unit<'_> {
    fn drop(&mut self) {
        // SAFETY: the program is live and not used again.
        unsafe { (self.nvrtc.functions.nvrtcDestroyProgram)(&mut self.program) };
    }
}

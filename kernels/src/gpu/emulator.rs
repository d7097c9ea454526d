//! The device `emulated`: the CUDA sources compiled for the host and run thread by thread, see `kernels/emulator`.
//!
//! The host's C++ compiler builds the emulator's core and each module at run time, in the shape NVRTC does: source and
//! definitions in, code out. Memory is poisoned with NaN, ends at a page nobody may touch, and is never handed out twice.

use super::cache::{Cache, Key};
use super::module::{Arg, Grid, Module};
use crate::{Error, Result};
use rayon::prelude::*;
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

macro_rules! core {
    ($($file:literal),* $(,)?) => {
        &[$(($file, include_str!(concat!("../../emulator/", $file)))),*]
    };
}

const CORE: &[(&str, &str)] = core![
    "emulator.h",
    "core.h",
    "checker.h",
    "checker_state.h",
    "emulator.cpp",
    "warps.cpp",
    "copies.cpp",
    "mbarriers.cpp",
    "instructions.cpp",
    "checker.cpp",
    "proxies.cpp",
    "bounds.cpp",
    "sanitizer.cpp",
    "places.cpp",
    "faults.cpp",
];

/// `-ffp-contract=off`: what a kernel multiplies and adds apart stays apart, on every host.
const OPTIONS: &[&str] = &[
    "-std=c++17",
    "-O2",
    "-g1",
    "-fPIC",
    "-fno-strict-aliasing",
    "-ffp-contract=off",
    "-U_FORTIFY_SOURCE",
    "-Wno-unknown-pragmas",
    "-DLENSLET_EMULATED",
];

/// Makes a kernel call `sanitizer.cpp` at every access. Vectors that the compiler makes on its own would hide whose access
/// it is.
const CHECKED: &[&str] = &["-fsanitize=thread,alignment", "-fno-tree-vectorize", "-fno-tree-slp-vectorize"];

/// As above, for clang: it leaves out a read that a write to the same place follows, and such memory may never have been
/// written.
const CHECKED_BY_CLANG: &[&str] = &["-mllvm", "-tsan-instrument-read-before-write=1"];

/// The checker follows one launch at a time.
static ONE_CHECKED: Mutex<()> = Mutex::new(());

/// How kernels are emulated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Emulation {
    /// The order of threads and of asynchronous copies: 0 in order, copies as late as may be; 1 in reverse; others random.
    pub seed: u64,
    /// Whether every access to memory is checked: races, bounds, alignment and what was never written. Blocks run one after
    /// the other then, and ten times slower or more.
    pub check: bool,
}

/// The C++ compiler and what it built so far.
#[derive(Debug)]
pub(crate) struct Emulator {
    settings: Emulation,
    compiler: Compiler,
    core: Core,
    modules: Mutex<HashMap<Module, Arc<libloading::Library>>>,
}

impl Emulator {
    pub(super) fn new(settings: Emulation) -> Result<Emulator> {
        let compiler = Compiler::find()?;
        let core = Core::get(&compiler)?;
        Ok(Emulator { settings, compiler, core, modules: Mutex::default() })
    }

    pub(super) fn allocate(&self, bytes: usize) -> Option<u64> {
        // SAFETY: the core's function takes any size and answers null when there is no memory.
        let memory = unsafe { (self.core.allocate)(bytes) };
        // SAFETY: the memory was allocated with this size just now.
        if !memory.is_null() && self.settings.check && !unsafe { (self.core.check_memory)(memory, bytes) } {
            // SAFETY: as above; nobody else knows of it.
            unsafe { (self.core.free)(memory, bytes) };
            return None;
        }
        (!memory.is_null()).then_some(memory as u64)
    }

    pub(super) fn free(&self, address: u64, bytes: usize) {
        let memory = address as *mut c_void;
        if self.settings.check {
            // SAFETY: `allocate` made the memory known to the checker, and it is freed once.
            unsafe { (self.core.forget_memory)(memory) }
        }
        // SAFETY: `Gpu::free` is called once per allocation, with its address and size.
        unsafe { (self.core.free)(memory, bytes) }
    }

    pub(super) fn upload(&self, to: u64, data: &[u8]) {
        // SAFETY: views check that `data` fits into the buffer at `to`, which is borrowed for writing.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), to as *mut u8, data.len()) }
        if self.settings.check && !data.is_empty() {
            // SAFETY: these bytes lie in memory that `allocate` made known to the checker.
            unsafe { (self.core.host_wrote)(to as *const c_void, data.len()) }
        }
    }

    pub(super) fn download(&self, from: u64, data: &mut [u8]) {
        // SAFETY: views check that the buffer at `from` holds `data.len()` bytes; emulated memory is always initialised.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, data.as_mut_ptr(), data.len()) }
    }

    fn module(&self, module: &Module) -> Result<Arc<libloading::Library>> {
        let mut modules = self.modules.lock().expect("no panic while modules are locked");
        if let Some(library) = modules.get(module) {
            return Ok(library.clone());
        }
        let file = module.file();
        let texts = module.sources()?;
        let mut sources: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (name.as_str(), text.as_ref())).collect();
        sources.push(CORE[0]);
        let mut options: Vec<String> = module.options().collect();
        if self.settings.check {
            let clang = self.compiler.version.contains("clang");
            let more = if clang { CHECKED_BY_CLANG } else { &[] };
            options.extend(CHECKED.iter().chain(more).map(ToString::to_string));
        }
        let path = self.compiler.build(&sources, &file, &options)?;
        let library = Arc::new(open(&path)?);
        modules.insert(module.clone(), library.clone());
        Ok(library)
    }

    pub(super) fn launch(&self, module: &Module, kernel: &'static str, grid: Grid, args: &[Arg]) -> Result<()> {
        let failed = |message| Error::Kernel { kernel, module: module.to_string(), message };
        let library = self.module(module)?;
        let symbol = format!("kernel_{kernel}");
        // SAFETY: symbols of this name are `emu::Kernel` values, whose layout `Entry` repeats.
        let entry = unsafe { library.get::<*const Entry>(symbol.as_bytes()) };
        let entry = *entry.map_err(|_| failed(format!("{} has no such kernel", module.file())))?;
        // SAFETY: the symbol points to a constant of the library, which stays open for the length of the call.
        check_signature(unsafe { &*entry }, args).map_err(failed)?;
        let most = (self.core.most_shared)();
        if grid.shared > most {
            return Err(failed(format!("{} bytes of shared memory, at most {most}", grid.shared)));
        }
        self.run(entry, grid, args).map_err(|message| failed(format!("{message} (seed {})", self.settings.seed)))
    }

    /// Runs all blocks, shared out between the threads of the pool. The first error in the grid's order is told.
    fn run(&self, entry: *const Entry, grid: Grid, args: &[Arg]) -> std::result::Result<(), String> {
        let values: Vec<*const u64> = args.iter().map(|arg| &raw const arg.bits).collect();
        let pointed = args.iter().zip(0..).filter_map(|(arg, argument)| Some((arg.range?, argument)));
        let ranges: Vec<Range> = pointed
            .filter(|(range, _)| range.bytes > 0)
            .map(|(range, argument)| Range {
                start: range.address as usize,
                bytes: range.bytes,
                argument,
                writable: range.writable,
            })
            .collect();
        let [x, y, z] = grid.blocks.map(|blocks| blocks as u32);
        let launch = Launch {
            kernel: entry,
            arguments: values.as_ptr().cast(),
            ranges: ranges.as_ptr(),
            range_count: ranges.len() as u32,
            threads: grid.threads as u32,
            grid: [x, y, z],
            shared_bytes: grid.shared as u32,
            seed: self.settings.seed,
            check: self.settings.check,
        };
        let blocks = grid.blocks.iter().product::<usize>();
        let run_block = |block| {
            let (bx, rest) = (block as u32 % x, block as u32 / x);
            self.core.run_block(&launch, [bx, rest % y, rest / y])
        };
        if launch.check {
            let _one = ONE_CHECKED.lock().unwrap_or_else(PoisonError::into_inner);
            // SAFETY: all that the launch points to lives until the call's last block has run, and no other is checked.
            unsafe { (self.core.check_launch)(&launch) };
            return (0..blocks).try_for_each(run_block);
        }
        (0..blocks).into_par_iter().with_min_len(blocks / 256).try_for_each(run_block)
    }
}

/// Argument types as the kernel declares them against those of the launch: the real driver would not notice.
fn check_signature(entry: &Entry, args: &[Arg]) -> std::result::Result<(), String> {
    // SAFETY: the signature is a constant C string of the open library.
    let declared = unsafe { CStr::from_ptr(entry.signature) }.to_bytes();
    let given: Vec<u8> = args.iter().map(|arg| arg.letter).collect();
    if declared == given {
        return Ok(());
    }
    let text = |letters: &[u8]| String::from_utf8_lossy(letters).into_owned();
    Err(format!("declares the arguments {}, launched with {}", text(declared), text(&given)))
}

/// `emu::Kernel`.
#[repr(C)]
struct Entry {
    call: *const c_void,
    signature: *const c_char,
    sizes: *const u32,
}

/// `emu::Range`.
#[repr(C)]
struct Range {
    start: usize,
    bytes: usize,
    argument: u32,
    writable: bool,
}

/// `emu::Launch`.
#[repr(C)]
struct Launch {
    kernel: *const Entry,
    arguments: *const *const c_void,
    ranges: *const Range,
    range_count: u32,
    threads: u32,
    grid: [u32; 3],
    shared_bytes: u32,
    seed: u64,
    check: bool,
}

// SAFETY: a launch is read only while its blocks run, and what it points to outlives them.
unsafe impl Sync for Launch {}

/// The emulator's core as a library. One for the process, never closed: modules are linked to the one opened first, and it
/// handles the process's faults.
#[derive(Debug, Clone, Copy)]
struct Core {
    run_block: unsafe extern "C" fn(*const Launch, u32, u32, u32, *mut c_char, usize) -> i32,
    allocate: unsafe extern "C" fn(usize) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void, usize),
    most_shared: extern "C" fn() -> usize,
    check_launch: unsafe extern "C" fn(*const Launch),
    check_memory: unsafe extern "C" fn(*const c_void, usize) -> bool,
    forget_memory: unsafe extern "C" fn(*const c_void),
    host_wrote: unsafe extern "C" fn(*const c_void, usize),
}

impl Core {
    fn get(compiler: &Compiler) -> Result<Core> {
        static OPENED: Mutex<Option<Core>> = Mutex::new(None);
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.is_none() {
            *opened = Some(Core::open(compiler)?);
        }
        Ok(opened.expect("opened just now"))
    }

    fn open(compiler: &Compiler) -> Result<Core> {
        use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
        let path = {
            let inputs: Vec<&str> = CORE.iter().map(|(name, _)| *name).filter(|name| name.ends_with(".cpp")).collect();
            compiler.build(CORE, &inputs.join(" "), &[])?
        };
        let bad = |error: libloading::Error| no_device(format!("{}: {error}", path.display()));
        // SAFETY: the library was built from our own sources; its initialisers only set up static data. Global, since the
        // modules call its functions.
        let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) }.map_err(bad)?;
        let library = std::mem::ManuallyDrop::new(library);
        // SAFETY: these functions are declared with the very types in emulator.cpp, faults.cpp and checker.cpp.
        unsafe {
            Ok(Core {
                run_block: *library.get(b"emu_run_block\0").map_err(bad)?,
                allocate: *library.get(b"emu_allocate\0").map_err(bad)?,
                free: *library.get(b"emu_free\0").map_err(bad)?,
                most_shared: *library.get(b"emu_most_shared\0").map_err(bad)?,
                check_launch: *library.get(b"emu_check_launch\0").map_err(bad)?,
                check_memory: *library.get(b"emu_check_memory\0").map_err(bad)?,
                forget_memory: *library.get(b"emu_forget_memory\0").map_err(bad)?,
                host_wrote: *library.get(b"emu_host_wrote\0").map_err(bad)?,
            })
        }
    }

    fn run_block(&self, launch: &Launch, [x, y, z]: [u32; 3]) -> std::result::Result<(), String> {
        let mut text = [0u8; 4096];
        // SAFETY: the launch and all it points to live until the call returns; `text` has the stated capacity.
        let status = unsafe { (self.run_block)(launch, x, y, z, text.as_mut_ptr().cast(), text.len()) };
        if status == 0 {
            return Ok(());
        }
        let message = CStr::from_bytes_until_nul(&text).map(CStr::to_string_lossy);
        Err(message.unwrap_or_default().into_owned())
    }
}

fn open(path: &Path) -> Result<libloading::Library> {
    // SAFETY: the library was built from our own sources and has no initialisers of its own.
    unsafe { libloading::Library::new(path) }.map_err(|error| no_device(format!("{}: {error}", path.display())))
}

/// The host's C++ compiler.
#[derive(Debug)]
struct Compiler {
    program: String,
    /// What `--version` prints: part of the cache's key.
    version: String,
    cache: Cache,
}

impl Compiler {
    /// `$LENSLET_CXX`, `$CXX`, or the first of the usual names that answers.
    fn find() -> Result<Compiler> {
        let value = |name: &&str| std::env::var_os(name).filter(|program| !program.is_empty());
        let chosen = ["LENSLET_CXX", "CXX"].iter().find_map(value);
        let chosen = chosen.map(|program| program.to_string_lossy().into_owned());
        let names = match &chosen {
            Some(name) => vec![name.as_str()],
            None => vec!["c++", "g++", "clang++"],
        };
        let answer = names.iter().find_map(|program| {
            let output = Command::new(program).arg("--version").output().ok()?;
            let version = String::from_utf8_lossy(&output.stdout).into_owned();
            output.status.success().then(|| (program.to_string(), version))
        });
        let (program, version) = answer.ok_or_else(|| {
            no_device(format!(
                "it compiles the CUDA kernels with a C++ compiler, and none answered (tried {}); install g++ or clang, or \
                 name one in LENSLET_CXX",
                names.join(", ")
            ))
        })?;
        Ok(Compiler { program, version, cache: Cache::open()? })
    }

    /// Builds the files `inputs` (split at spaces) among `sources` into a library and returns its path.
    fn build(&self, sources: &[(&str, &str)], inputs: &str, options: &[String]) -> Result<PathBuf> {
        let mut all: Vec<String> = OPTIONS.iter().map(ToString::to_string).chain(fast_options()).collect();
        all.extend_from_slice(options);
        let key = Key::new(&self.version, inputs, &all, sources);
        let make = |library: &Path| {
            // Beside the library: what a killed process leaves is removed with it.
            let folder = tempfile::tempdir_in(library.parent().unwrap_or(library))
                .map_err(|error| no_device(format!("no temporary folder: {error}")))?;
            for (name, text) in sources {
                let path = folder.path().join(name);
                std::fs::write(&path, text).map_err(|error| no_device(format!("{}: {error}", path.display())))?;
            }
            let run = |command: &mut Command| {
                let output = command.current_dir(folder.path()).output();
                let output = output.map_err(|error| no_device(format!("{}: {error}", self.program)))?;
                if output.status.success() {
                    return Ok(());
                }
                Err(no_device(format!(
                    "{} does not compile {inputs}:\n{}",
                    self.program,
                    String::from_utf8_lossy(&output.stderr)
                )))
            };
            let mut objects = Vec::new();
            for input in inputs.split(' ') {
                let object = Path::new(input).with_extension("o");
                let mut compile = Command::new(&self.program);
                compile.args(&all).args(["-I.", "-c", "-x", "c++", input, "-o"]);
                run(compile.arg(&object))?;
                objects.push(object);
            }
            // Linked apart and without the options: no library of the sanitizer's comes in.
            let mut link = Command::new(&self.program);
            run(link.arg("-shared").args(objects).arg("-o").arg(library))
        };
        self.cache.get_or_make(&key, "so", make, |_| true)
    }
}

/// Instructions that make the emulator quicker where this machine has them.
fn fast_options() -> Option<String> {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
        return Some("-march=x86-64-v3".to_owned());
    }
    None
}

fn no_device(reason: String) -> Error {
    Error::NoDevice { name: "emulated".to_owned(), reason }
}

//! GPUs, real and emulated: both run the families' `.cu` files.

pub mod cache;
mod compile;
mod cuda;
pub mod driver;
mod emulator;
mod families;
pub mod golden;
mod module;
pub mod nvrtc;
pub mod ptxas;
mod queue;
mod replay;

pub(crate) mod score;

pub use compile::Specialisation;
pub use emulator::Emulation;
pub use families::specialisations;
pub use module::{Arg, Grid, Module};
pub(crate) use module::{Range, args, width};

use crate::{Buffer, DType, Device, Error, Result, View, ViewMut};
use cuda::Cuda;
use emulator::Emulator;
use queue::{Command, Queue};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Those of an H100: emulated kernels are launched as they are there.
const EMULATED_MULTIPROCESSORS: usize = 132;
/// Most blocks along x, y and z that CUDA takes.
const MOST_BLOCKS: [usize; 3] = [(1 << 31) - 1, (1 << 16) - 1, (1 << 16) - 1];

/// What runs kernels: at once, or, while it collects, when something is to be read back.
#[derive(Debug)]
pub(crate) struct Gpu {
    runner: Runner,
    queue: Mutex<Queue>,
    tf32: AtomicBool,
}

#[derive(Debug)]
enum Runner {
    Cuda(Cuda),
    Emulated(Emulator),
}

impl Gpu {
    pub(crate) fn cuda(ordinal: usize) -> Result<Gpu> {
        Cuda::open(ordinal).map(|cuda| Gpu::new(Runner::Cuda(cuda)))
    }

    pub(crate) fn emulated(settings: Emulation) -> Result<Gpu> {
        Emulator::new(settings).map(|emulator| Gpu::new(Runner::Emulated(emulator)))
    }

    fn new(runner: Runner) -> Gpu {
        Gpu { runner, queue: Mutex::default(), tf32: AtomicBool::new(false) }
    }

    pub(crate) fn allow_tf32(&self, allowed: bool) {
        self.tf32.store(allowed, Ordering::Relaxed);
    }

    /// Whether products of f32 may be computed as tf32.
    pub(crate) fn allows_tf32(&self) -> bool {
        self.tf32.load(Ordering::Relaxed)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on collects work, or does it at once.
    pub(crate) fn collect(&self, collecting: bool) -> Result<()> {
        let mut queue = self.queue();
        queue.collecting = collecting;
        self.flush(&mut queue)
    }

    /// Hands out all that waits.
    fn flush(&self, queue: &mut Queue) -> Result<()> {
        let (commands, freed) = queue.take();
        let done = if commands.is_empty() { Ok(()) } else { self.runner.run(commands) };
        for (address, bytes) in freed {
            self.runner.free(address, bytes);
        }
        done
    }

    /// Does something once all that waits has been handed out.
    fn after_all<R>(&self, work: impl FnOnce(&Runner) -> Result<R>) -> Result<R> {
        let mut queue = self.queue();
        self.flush(&mut queue)?;
        work(&self.runner)
    }

    fn push(&self, queue: &mut Queue, command: Command) -> Result<()> {
        queue.push(command);
        if queue.is_full() { self.flush(queue) } else { Ok(()) }
    }

    /// The address of new memory, at least `bytes` long; `None` when there is none left.
    pub(crate) fn allocate(&self, bytes: usize) -> Option<u64> {
        // Where there is no room there may be some among what waits to be given back; failures of work show again later.
        let again = || {
            let done = self.flush(&mut self.queue());
            done.ok().and_then(|()| self.runner.allocate(bytes))
        };
        self.runner.allocate(bytes).or_else(again)
    }

    /// Gives back what [`Gpu::allocate`] handed out for the same number of bytes.
    pub(crate) fn free(&self, address: u64, bytes: usize) {
        if self.queue().may_free(address, bytes) {
            self.runner.free(address, bytes);
        }
    }

    pub(crate) fn upload(&self, to: u64, data: &[u8]) -> Result<()> {
        let mut queue = self.queue();
        if !queue.collecting {
            return self.runner.upload(to, data);
        }
        let data = data.to_vec();
        self.push(&mut queue, Command::Upload { to, data })
    }

    pub(crate) fn download(&self, from: u64, data: &mut [u8]) -> Result<()> {
        self.after_all(|runner| runner.download(from, data))
    }

    pub(crate) fn synchronize(&self) -> Result<()> {
        self.after_all(Runner::synchronize)
    }

    /// Bytes of a real GPU's memory that nobody holds.
    pub(crate) fn free_memory(&self) -> Result<Option<usize>> {
        match &self.runner {
            Runner::Cuda(cuda) => cuda.free_memory().map(Some),
            Runner::Emulated(_) => Ok(None),
        }
    }

    /// Whether it has the module's instructions.
    fn runs(&self, module: &Module) -> bool {
        match &self.runner {
            Runner::Cuda(cuda) => module.runs_on(cuda.architecture()),
            Runner::Emulated(_) => true,
        }
    }

    /// How many blocks at least keep all of it busy.
    pub(crate) fn multiprocessors(&self) -> usize {
        match &self.runner {
            Runner::Cuda(cuda) => cuda.multiprocessors(),
            Runner::Emulated(_) => EMULATED_MULTIPROCESSORS,
        }
    }

    fn launch(&self, module: &Module, kernel: &'static str, grid: Grid, args: &[Arg]) -> Result<()> {
        let mut queue = self.queue();
        if !queue.collecting {
            drop(queue);
            return self.runner.launch(module, kernel, grid, args);
        }
        let (module, args) = (module.clone(), args.to_vec());
        let command = Command::Launch { module, kernel, grid, args };
        self.push(&mut queue, command)
    }
}

impl Drop for Gpu {
    /// Nobody can see what waiting work would do.
    fn drop(&mut self) {
        for (address, bytes) in self.queue().take().1 {
            self.runner.free(address, bytes);
        }
    }
}

impl Runner {
    fn allocate(&self, bytes: usize) -> Option<u64> {
        match self {
            Runner::Cuda(cuda) => cuda.allocate(bytes),
            Runner::Emulated(emulator) => emulator.allocate(bytes),
        }
    }

    fn free(&self, address: u64, bytes: usize) {
        match self {
            Runner::Cuda(cuda) => cuda.free(address),
            Runner::Emulated(emulator) => emulator.free(address, bytes),
        }
    }

    fn upload(&self, to: u64, data: &[u8]) -> Result<()> {
        match self {
            Runner::Cuda(cuda) => cuda.upload(to, data),
            Runner::Emulated(emulator) => {
                emulator.upload(to, data);
                Ok(())
            }
        }
    }

    fn download(&self, from: u64, data: &mut [u8]) -> Result<()> {
        match self {
            Runner::Cuda(cuda) => cuda.download(from, data),
            Runner::Emulated(emulator) => {
                emulator.download(from, data);
                Ok(())
            }
        }
    }

    fn synchronize(&self) -> Result<()> {
        match self {
            Runner::Cuda(cuda) => cuda.synchronize(),
            Runner::Emulated(_) => Ok(()),
        }
    }

    fn launch(&self, module: &Module, kernel: &'static str, grid: Grid, args: &[Arg]) -> Result<()> {
        match self {
            Runner::Cuda(cuda) => cuda.launch(module, kernel, grid, args),
            Runner::Emulated(emulator) => emulator.launch(module, kernel, grid, args),
        }
    }

    /// Does collected work in its order.
    fn run(&self, commands: Vec<Command>) -> Result<()> {
        if let Runner::Cuda(cuda) = self {
            return cuda.run(&commands);
        }
        commands.into_iter().try_for_each(|command| match command {
            Command::Launch { module, kernel, grid, args } => self.launch(&module, kernel, grid, &args),
            Command::Upload { to, data } => self.upload(to, &data),
        })
    }
}

/// Fails for F64, which is computed on the CPU only.
pub(crate) fn refuse_f64(op: &'static str, dtype: DType) -> Result<()> {
    if dtype != DType::F64 {
        return Ok(());
    }
    let message = "f64 is computed on the CPU only; use f32 or bf16 on this device".to_owned();
    Err(Error::Value { op, message })
}

/// Runs a kernel of `module`. A grid without blocks runs nothing.
///
/// # Errors
/// A source that does not compile, a launch that fails: [`Error::Kernel`].
pub(crate) fn launch(device: &Device, module: &Module, kernel: &'static str, grid: Grid, args: &[Arg]) -> Result<()> {
    if grid.blocks.contains(&0) {
        return Ok(());
    }
    let failed = |message| Error::Kernel { kernel, module: module.to_string(), message };
    if grid.blocks.iter().zip(MOST_BLOCKS).any(|(&blocks, most)| blocks > most) {
        let message = format!("{:?} blocks, CUDA takes {MOST_BLOCKS:?}: a smaller batch needs fewer", grid.blocks);
        return Err(failed(message));
    }
    let gpu = device.gpu().ok_or_else(|| {
        let kind = device.kind().name();
        failed(format!("launched on {kind}, which runs no CUDA kernels"))
    })?;
    gpu.launch(module, kernel, grid, args)
}

/// Memory for what one kernel hands to the next: `len` elements, in their own buffer.
pub(crate) struct Workspace {
    buffer: Buffer,
    dtype: DType,
    len: usize,
}

impl Workspace {
    pub(crate) fn new(device: &Device, dtype: DType, len: usize) -> Result<Workspace> {
        let buffer = device.allocate(len * dtype.size())?;
        Ok(Workspace { buffer, dtype, len })
    }

    pub(crate) fn view(&self) -> View<'_> {
        View::new(&self.buffer, self.dtype, 0, self.len)
    }

    pub(crate) fn view_mut(&mut self) -> ViewMut<'_> {
        ViewMut::new(&mut self.buffer, self.dtype, 0, self.len)
    }
}

/// Runs a kernel of one's own, see [`Module::from_source`]. On an emulated device that checks, its mistakes are errors that
/// name lines and threads:
///
/// ```
/// # fn main() -> kernels::Result<()> {
/// use kernels::gpu::{Arg, Emulation, Grid, Module, launch_own};
/// use kernels::{DType, Device, View, ViewMut};
///
/// let source = r#"
/// #include "prelude.cuh"
/// extern "C" __global__ void twice(float* x, i64 len) {
///     i64 i = global_thread();
///     if (i < len) x[i] *= 2.0f;
/// }
/// EXPORT_KERNEL(twice)"#;
/// let device = Device::emulated(Emulation { check: true, ..Default::default() })?;
/// let mut x = device.allocate(400)?;
/// ViewMut::new(&mut x, DType::F32, 0, 100).upload(&[1.0f32; 100])?;
/// let args = [Arg::from(&ViewMut::new(&mut x, DType::F32, 0, 100)), Arg::from(100i64)];
/// // SAFETY: the kernel stays below `len`, which is the view's length, and nothing else uses `x`.
/// unsafe { launch_own(&device, &Module::from_source("twice", source), "twice", Grid::new(1, 128), &args)? };
/// assert_eq!(View::new(&x, DType::F32, 0, 100).download::<f32>()?, [2.0; 100]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Kernel`] and [`Error::NoDevice`]: a source that does not compile, arguments of other types than the kernel's, a
/// launch that fails.
///
/// # Safety
/// The views that arguments were made from are still alive, and their memory is borrowed by nobody else where the kernel
/// writes. The kernel accesses what they cover and nothing else; a device that checks ends the launch before it does.
pub unsafe fn launch_own(
    device: &Device,
    module: &Module,
    kernel: &'static str,
    grid: Grid,
    args: &[Arg],
) -> Result<()> {
    launch(device, module, kernel, grid, args)
}

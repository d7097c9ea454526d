//! Devices and the memory on them.
//!
//! A [`Device`] hands out [`Buffer`]s from free lists by size: a training step with static shapes asks for the same
//! sizes in the same order each time, so after the first step nothing is allocated any more.

use crate::gpu::{Emulation, Gpu};
use crate::{Error, Result};
use memmap2::MmapMut;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Alignment of every buffer: one cache line, one AVX-512 register.
const ALIGN: usize = 64;

/// A free block serves requests smaller by up to one part in so many.
const FIT: usize = 4;
/// A pool holds at most one part in so many more than was ever in use at once: with shapes that keep changing, free lists
/// would grow for ever.
const SPARE: usize = 2;

/// Blocks from this size on, in bytes, are mapped.
const MAPPED: usize = 256 << 10;

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// This machine's processor, SIMD chosen at run time.
    Cpu,
    /// Nothing: buffers have a size and no memory, kernels check their arguments and return. A step run on it tells
    /// how much memory the same step needs elsewhere.
    Trace,
    /// The GPU of this number.
    Cuda(usize),
    /// The CUDA kernels, run thread by thread on the CPU.
    Emulated,
}

impl Kind {
    /// The name used on the command line and in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Cpu => "cpu",
            Kind::Trace => "trace",
            Kind::Cuda(_) => "cuda",
            Kind::Emulated => "emulated",
        }
    }
}

/// A handle to a device and its memory pool; clones share the pool.
#[derive(Debug, Clone)]
pub struct Device {
    kind: Kind,
    pool: Arc<Mutex<Pool>>,
    gpu: Option<Arc<Gpu>>,
    downloads: Arc<AtomicUsize>,
}

/// Bytes a device's pool holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// In live buffers.
    pub in_use: usize,
    /// The most that was ever in live buffers at once.
    pub peak_in_use: usize,
    /// Taken from the system: live buffers and free lists.
    pub reserved: usize,
    /// The most that was ever taken from the system at once.
    pub peak_reserved: usize,
}

#[derive(Debug, Default)]
struct Pool {
    free: BTreeMap<usize, Vec<Memory>>,
    usage: MemoryUse,
}

impl Pool {
    /// The smallest free block of at least `size` bytes and not much more, with its size.
    fn take(&mut self, size: usize) -> Option<(usize, Memory)> {
        let (&found, blocks) = self.free.range_mut(size..=size + size / FIT).next()?;
        let memory = blocks.pop()?;
        if blocks.is_empty() {
            self.free.remove(&found);
        }
        Some((found, memory))
    }

    /// Gives free blocks back to the system, the largest first, until no more than `most` bytes are held.
    fn make_room(&mut self, most: usize) {
        while self.usage.reserved > most {
            let Some(mut largest) = self.free.last_entry() else {
                return;
            };
            self.usage.reserved -= largest.key();
            largest.get_mut().pop();
            if largest.get().is_empty() {
                largest.remove();
            }
        }
    }
}

impl Device {
    /// The processor, with a pool of its own.
    pub fn cpu() -> Device {
        Device::new(Kind::Cpu, None)
    }

    /// The device that computes nothing and only counts memory.
    pub fn trace() -> Device {
        Device::new(Kind::Trace, None)
    }

    /// The GPU `cuda:<ordinal>`, in the driver's order.
    ///
    /// # Errors
    /// [`Error::NoDevice`] without a driver, such a GPU or NVRTC: tells what was looked for and where.
    pub fn cuda(ordinal: usize) -> Result<Device> {
        let gpu = Gpu::cuda(ordinal)?;
        Ok(Device::new(Kind::Cuda(ordinal), Some(Arc::new(gpu))))
    }

    /// The CUDA kernels on this machine's processor.
    ///
    /// # Errors
    /// [`Error::NoDevice`] without a working C++ compiler.
    pub fn emulated(settings: Emulation) -> Result<Device> {
        let gpu = Gpu::emulated(settings)?;
        Ok(Device::new(Kind::Emulated, Some(Arc::new(gpu))))
    }

    fn new(kind: Kind, gpu: Option<Arc<Gpu>>) -> Device {
        Device { kind, pool: Arc::default(), gpu, downloads: Arc::default() }
    }

    /// What runs CUDA kernels here.
    pub(crate) fn gpu(&self) -> Option<&Gpu> {
        self.gpu.as_deref()
    }

    /// What computes here.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// From now on, or no longer, a GPU's work is collected and handed out as a whole when something is read back: work that
    /// comes again in the same course is one CUDA graph then, without a launch for every kernel. Failures show where that
    /// is. The CPU works at once in any case.
    pub fn collect_work(&self, collecting: bool) -> Result<()> {
        self.gpu().map_or(Ok(()), |gpu| gpu.collect(collecting))
    }

    /// From now on, or no longer, a GPU may round the operands of f32 products to the 10 bits of mantissa of tf32, which
    /// its tensor cores multiply several times quicker; each product is then off by up to 2⁻¹⁰ of its size. At first it may
    /// not. The CPU multiplies exactly in any case.
    pub fn allow_tf32(&self, allowed: bool) {
        if let Some(gpu) = self.gpu() {
            gpu.allow_tf32(allowed);
        }
    }

    /// Waits until the device has done everything asked of it.
    pub fn synchronize(&self) -> Result<()> {
        self.gpu().map_or(Ok(()), Gpu::synchronize)
    }

    /// How often data came back from a GPU, real or emulated, which makes the host wait for all that was asked of it before.
    pub fn downloads(&self) -> usize {
        self.downloads.load(Ordering::Relaxed)
    }

    pub(crate) fn count_download(&self) {
        self.downloads.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes of a GPU's own memory that nobody holds; None where tensors lie in the host's.
    pub fn free_memory(&self) -> Result<Option<usize>> {
        self.gpu().map_or(Ok(None), Gpu::free_memory)
    }

    /// The pool's counters.
    pub fn memory(&self) -> MemoryUse {
        self.pool.lock().expect("no panic while the pool is locked").usage
    }

    /// Lets the pool's peaks begin anew from what it holds now.
    pub fn reset_peaks(&self) {
        let usage = &mut self.pool.lock().expect("no panic while the pool is locked").usage;
        (usage.peak_in_use, usage.peak_reserved) = (usage.in_use, usage.reserved);
    }

    /// Gives what the pool holds and nobody uses back to the system: after work whose sizes will not come again.
    pub fn trim(&self) {
        self.pool.lock().expect("no panic while the pool is locked").make_room(0);
    }

    /// A buffer of at least `bytes` bytes with arbitrary (initialised) contents.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] when the system has none left; on the CPU those of [`chosen`](crate::cpu::simd::chosen), so that
    /// no kernel meets them.
    pub fn allocate(&self, bytes: usize) -> Result<Buffer> {
        if self.kind == Kind::Cpu {
            crate::cpu::simd::chosen()?;
        }
        let size = bytes.max(1).next_multiple_of(ALIGN);
        let mut pool = self.pool.lock().expect("no panic while the pool is locked");
        let (size, memory) = match pool.take(size) {
            Some(found) => found,
            None => {
                let most = pool.usage.peak_in_use.max(pool.usage.in_use + size);
                pool.make_room((most + most / SPARE).saturating_sub(size));
                let memory = Memory::new(self, size).ok_or(Error::OutOfMemory {
                    device: self.kind.name(),
                    bytes: size,
                    in_use: pool.usage.in_use,
                })?;
                pool.usage.reserved += size;
                pool.usage.peak_reserved = pool.usage.peak_reserved.max(pool.usage.reserved);
                (size, memory)
            }
        };
        pool.usage.in_use += size;
        pool.usage.peak_in_use = pool.usage.peak_in_use.max(pool.usage.in_use);
        Ok(Buffer { memory: Some(memory), size, device: self.clone() })
    }
}

/// Memory on a device; goes back to its pool when dropped.
#[derive(Debug)]
pub struct Buffer {
    memory: Option<Memory>,
    size: usize,
    device: Device,
}

impl Buffer {
    /// Where it lives.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Its bytes on the CPU; empty on a device whose memory the host cannot see.
    pub fn bytes(&self) -> &[u8] {
        match &self.memory {
            Some(Memory::Heap(lines)) => bytemuck::cast_slice(lines),
            Some(Memory::Mapped(map)) => map,
            Some(Memory::Gpu { .. } | Memory::Trace) | None => &[],
        }
    }

    /// Its bytes on the CPU, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Some(Memory::Heap(lines)) => bytemuck::cast_slice_mut(lines),
            Some(Memory::Mapped(map)) => map,
            Some(Memory::Gpu { .. } | Memory::Trace) | None => &mut [],
        }
    }
}

impl Buffer {
    /// Its address for CUDA kernels; 0 where none run.
    pub(crate) fn address(&self) -> u64 {
        match &self.memory {
            Some(Memory::Gpu { address, .. }) => *address,
            _ => 0,
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let (Some(memory), Ok(mut pool)) = (self.memory.take(), self.device.pool.lock()) {
            pool.usage.in_use -= self.size;
            match self.device.kind {
                // Given back at once: what is used after it was freed, or was never written, shows.
                Kind::Emulated => pool.usage.reserved -= self.size,
                Kind::Cpu | Kind::Cuda(_) | Kind::Trace => pool.free.entry(self.size).or_default().push(memory),
            }
        }
    }
}

/// One cache line.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; ALIGN]);

/// Zeroed when it is new.
#[derive(Debug)]
enum Memory {
    Heap(Vec<Line>),
    /// Large blocks come from the system and go back to it whole: a heap would keep the holes they leave.
    Mapped(MmapMut),
    /// Of a GPU, or of the emulator.
    Gpu {
        address: u64,
        size: usize,
        gpu: Arc<Gpu>,
    },
    Trace,
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Memory::Gpu { address, size, gpu } = self {
            gpu.free(*address, *size);
        }
    }
}

impl Memory {
    fn new(device: &Device, size: usize) -> Option<Memory> {
        if let Some(gpu) = &device.gpu {
            let address = gpu.allocate(size)?;
            let gpu = gpu.clone();
            return Some(Memory::Gpu { address, size, gpu });
        }
        match device.kind {
            Kind::Cpu if size >= MAPPED => MmapMut::map_anon(size).ok().map(Memory::Mapped),
            Kind::Cpu => Some(Memory::Heap(vec![Line([0; ALIGN]); size / ALIGN])),
            Kind::Trace | Kind::Cuda(_) | Kind::Emulated => Some(Memory::Trace),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trimming_gives_back_what_nobody_uses() {
        let device = Device::cpu();
        let held = device.allocate(1000).unwrap();
        drop(device.allocate(5000).unwrap());
        device.trim();
        let usage = device.memory();
        assert_eq!((usage.in_use, usage.reserved), (1024, 1024));
        drop(held);
        device.trim();
        assert_eq!(device.memory().reserved, 0);
    }

    #[test]
    fn a_freed_buffer_is_handed_out_again() {
        let device = Device::cpu();
        let first = device.allocate(1000).unwrap();
        let address = first.bytes().as_ptr();
        drop(first);
        let second = device.allocate(1001).unwrap();
        assert_eq!(second.bytes().as_ptr(), address, "1000 and 1001 bytes round to the same size");
        assert_eq!(device.memory(), MemoryUse { in_use: 1024, peak_in_use: 1024, reserved: 1024, peak_reserved: 1024 });
    }

    #[test]
    fn a_free_block_serves_a_little_less_and_not_much_less() {
        for size in [4096, 4 * MAPPED] {
            let device = Device::cpu();
            drop(device.allocate(size).unwrap());
            let near = device.allocate(size - size / 8).unwrap();
            assert_eq!((near.bytes().len(), device.memory().reserved), (size, size));
            drop(near);
            let far = device.allocate(size / 2).unwrap();
            assert_eq!(far.bytes().len(), size / 2);
            assert_eq!(device.memory().in_use, size / 2);
        }
    }

    #[test]
    fn what_is_given_back_is_no_longer_held() {
        let device = Device::cpu();
        let blocks: Vec<_> = (1..=8).map(|i| device.allocate(i * MAPPED).unwrap()).collect();
        let most = device.memory().peak_in_use;
        drop(blocks);
        // Too large for any free block, and with all of them beyond what may be held.
        let large = device.allocate(most).unwrap();
        let MemoryUse { in_use, reserved, .. } = device.memory();
        assert!(in_use == most && reserved <= most + most / SPARE, "{:?}", device.memory());
        drop(large);
        assert_eq!(device.memory().in_use, 0);
    }

    #[test]
    fn peaks_begin_anew_from_what_is_held() {
        let device = Device::cpu();
        let first = device.allocate(1024).unwrap();
        drop(device.allocate(4096).unwrap());
        device.reset_peaks();
        assert_eq!(device.memory().peak_in_use, 1024);
        drop((first, device.allocate(512).unwrap()));
        assert_eq!(device.memory().peak_in_use, 1536);
    }

    #[test]
    fn sizes_that_keep_changing_do_not_pile_up() {
        let device = Device::trace();
        for size in 1..1000 {
            drop(device.allocate(size * ALIGN).unwrap());
        }
        assert!(device.memory().peak_reserved <= (999 + 999 / SPARE) * ALIGN, "{:?}", device.memory());
    }

    #[test]
    fn trace_counts_and_holds_nothing() {
        let device = Device::trace();
        let huge = device.allocate(1 << 50).unwrap();
        assert!(huge.bytes().is_empty());
        assert_eq!(device.memory().peak_in_use, 1 << 50);
    }

    #[test]
    fn an_impossible_request_is_an_error() {
        let error = Device::cpu().allocate(isize::MAX as usize - 100).unwrap_err();
        assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
    }
}

//! Devices and the memory on them.
//!
//! A [`Device`] hands out [`Buffer`]s from exact-size free lists: a training step with static shapes asks for the same
//! sizes in the same order each time, so after the first step nothing is allocated any more.

use crate::{Error, Result};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

/// Alignment of every buffer: one cache line, one AVX-512 register.
const ALIGN: usize = 64;

/// A pool gives its free lists back before it would hold more than this many times the most that was ever in use:
/// with shapes that keep changing, lists of exact sizes would grow for ever.
const MOST_RESERVED: usize = 2;

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// This machine's processor, SIMD chosen at run time.
    Cpu,
    /// Nothing: buffers have a size and no memory, kernels check their arguments and return. A step run on it tells
    /// how much memory the same step needs elsewhere.
    Trace,
}

impl Kind {
    /// The name used on the command line and in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Cpu => "cpu",
            Kind::Trace => "trace",
        }
    }
}

/// A handle to a device and its memory pool; clones share the pool.
#[derive(Debug, Clone)]
pub struct Device {
    kind: Kind,
    pool: Arc<Mutex<Pool>>,
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
    free: HashMap<usize, Vec<Memory>>,
    usage: MemoryUse,
}

impl Pool {
    /// Gives the free lists back to the system.
    fn release_free(&mut self) {
        self.free.clear();
        self.usage.reserved = self.usage.in_use;
    }
}

impl Device {
    /// The processor, with a pool of its own.
    pub fn cpu() -> Device {
        Device::new(Kind::Cpu)
    }

    /// The device that computes nothing and only counts memory.
    pub fn trace() -> Device {
        Device::new(Kind::Trace)
    }

    fn new(kind: Kind) -> Device {
        Device {
            kind,
            pool: Arc::default(),
        }
    }

    /// What computes here.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The pool's counters.
    pub fn memory(&self) -> MemoryUse {
        self.pool.lock().expect("no panic while the pool is locked").usage
    }

    /// A buffer of at least `bytes` bytes with arbitrary (initialised) contents.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] when the system has none left.
    pub fn allocate(&self, bytes: usize) -> Result<Buffer> {
        let size = bytes.max(1).next_multiple_of(ALIGN);
        let mut pool = self.pool.lock().expect("no panic while the pool is locked");
        let memory = match pool.free.get_mut(&size).and_then(Vec::pop) {
            Some(memory) => memory,
            None => {
                if pool.usage.reserved + size > MOST_RESERVED * (pool.usage.peak_in_use + size) {
                    pool.release_free();
                }
                let memory = Memory::new(self.kind, size).ok_or(Error::OutOfMemory {
                    device: self.kind.name(),
                    bytes: size,
                    in_use: pool.usage.in_use,
                })?;
                pool.usage.reserved += size;
                pool.usage.peak_reserved = pool.usage.peak_reserved.max(pool.usage.reserved);
                memory
            }
        };
        pool.usage.in_use += size;
        pool.usage.peak_in_use = pool.usage.peak_in_use.max(pool.usage.in_use);
        Ok(Buffer {
            memory: Some(memory),
            size,
            device: self.clone(),
        })
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
            // SAFETY: the block is `size` bytes, was zeroed when allocated and lives as long as `self`.
            Some(Memory::Cpu { data, .. }) => unsafe { std::slice::from_raw_parts(data.as_ptr(), self.size) },
            _ => &[],
        }
    }

    /// Its bytes on the CPU, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            // SAFETY: as in `bytes`, and `&mut self` makes this the only access.
            Some(Memory::Cpu { data, .. }) => unsafe { std::slice::from_raw_parts_mut(data.as_ptr(), self.size) },
            _ => &mut [],
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let (Some(memory), Ok(mut pool)) = (self.memory.take(), self.device.pool.lock()) {
            pool.usage.in_use -= self.size;
            pool.free.entry(self.size).or_default().push(memory);
        }
    }
}

#[derive(Debug)]
enum Memory {
    Cpu { data: NonNull<u8>, layout: Layout },
    Trace,
}

// SAFETY: `Memory::Cpu` owns its block alone; nothing about it is tied to a thread.
unsafe impl Send for Memory {}
// SAFETY: shared access only reads the pointer; the block is reached through `Buffer`, which follows Rust's borrow rules.
unsafe impl Sync for Memory {}

impl Memory {
    fn new(kind: Kind, size: usize) -> Option<Memory> {
        match kind {
            Kind::Cpu => {
                let layout = Layout::from_size_align(size, ALIGN).ok()?;
                // SAFETY: `size` is at least ALIGN, so the layout is not empty.
                let data = NonNull::new(unsafe { alloc_zeroed(layout) })?;
                Some(Memory::Cpu { data, layout })
            }
            Kind::Trace => Some(Memory::Trace),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Memory::Cpu { data, layout } = *self {
            // SAFETY: allocated in `new` with this very layout, and dropped once.
            unsafe { dealloc(data.as_ptr(), layout) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_buffer_is_handed_out_again() {
        let device = Device::cpu();
        let first = device.allocate(1000).unwrap();
        let address = first.bytes().as_ptr();
        drop(first);
        let second = device.allocate(1001).unwrap();
        assert_eq!(
            second.bytes().as_ptr(),
            address,
            "1000 and 1001 bytes round to the same size"
        );
        assert_eq!(
            device.memory(),
            MemoryUse {
                in_use: 1024,
                peak_in_use: 1024,
                reserved: 1024,
                peak_reserved: 1024,
            }
        );
    }

    #[test]
    fn sizes_that_keep_changing_do_not_pile_up() {
        let device = Device::trace();
        for size in 1..1000 {
            drop(device.allocate(size * ALIGN).unwrap());
        }
        assert!(
            device.memory().peak_reserved <= MOST_RESERVED * 2 * 999 * ALIGN,
            "{:?}",
            device.memory()
        );
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

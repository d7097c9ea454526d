//! The CUDA driver: memory, kernels and graphs on one GPU, with one stream.
//!
//! Addresses are plain numbers, and nothing here knows what lies behind them: whatever reads or writes through one is
//! unsafe, and [`Device`](crate::Device) is what makes it safe to use.

mod functions;
mod graph;

pub use graph::{Copy, Graph, Launch, Node};

use crate::cuda::{self, Driver};
use crate::{Error, Result};
use cudarc::driver::sys;
use functions::Functions;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_int, c_void};
use std::sync::{Arc, Mutex, PoisonError};

/// Dynamic shared memory that a kernel may have without asking.
const SHARED_BY_DEFAULT: usize = 48 << 10;

const OUT_OF_MEMORY: &str = "CUDA_ERROR_OUT_OF_MEMORY";

/// What a GPU is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Properties {
    /// Compute capability as (major, minor).
    pub architecture: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// The most shared memory a block can ask for, in bytes.
    pub shared_per_block: usize,
    /// The newest CUDA version the driver supports, as (major, minor).
    pub driver: (u32, u32),
}

/// One GPU, ready to work; clones share it. Any thread may call; what is called runs in order, on one stream.
#[derive(Debug, Clone)]
pub struct Context(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    functions: Functions,
    name: String,
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    properties: Properties,
}

// SAFETY: the driver's contexts and streams may be used from any thread, and by several at once; nothing else in here
// changes.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

/// Machine code on a GPU; unloaded when dropped.
#[derive(Debug)]
pub struct LoadedModule {
    context: Context,
    module: sys::CUmodule,
    functions: Mutex<HashMap<String, Function>>,
}

// SAFETY: the driver's modules may be used from any thread, and by several at once; the table has its lock.
unsafe impl Send for LoadedModule {}
// SAFETY: as above.
unsafe impl Sync for LoadedModule {}

/// A kernel of a [`LoadedModule`]; means nothing once that is gone.
#[derive(Debug, Clone, std::marker::Copy, PartialEq, Eq)]
pub struct Function(sys::CUfunction);

// SAFETY: it is a handle, only ever handed back to the driver, which takes it from any thread.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

impl Context {
    /// The GPU of this number in the driver's order, on the context that everything in a process shares.
    ///
    /// # Errors
    /// [`Error::NoDevice`] without a driver or such a GPU; [`Error::Driver`] if the driver fails.
    pub fn open(ordinal: usize) -> Result<Context> {
        let name = format!("cuda:{ordinal}");
        let missing = |reason: String| Error::NoDevice { name: format!("cuda:{ordinal}"), reason };
        let found = cuda::driver();
        let driver = match &found {
            Driver::Missing { .. } => {
                return Err(missing(format!("{found}; install NVIDIA's driver")));
            }
            Driver::Found { version, gpus } if ordinal < gpus.len() => *version,
            Driver::Found { .. } | Driver::Broken { .. } => return Err(missing(found.to_string())),
        };
        let functions = Functions::load().map_err(|function| {
            missing(format!(
                "the driver has no function {function}: CUDA 12 or newer is needed, this is {}.{}",
                driver.0, driver.1
            ))
        })?;
        Inner::new(functions, name, ordinal, driver).map(|inner| Context(Arc::new(inner)))
    }

    /// What the GPU is.
    pub fn properties(&self) -> &Properties {
        &self.0.properties
    }

    /// Bytes of the GPU's memory as (free, all).
    pub fn memory(&self) -> Result<(usize, usize)> {
        let (mut free, mut all) = (0, 0);
        let functions = self.0.enter()?;
        // SAFETY: both pointers are valid for one size.
        self.0.check("cuMemGetInfo", unsafe { (functions.cuMemGetInfo_v2)(&mut free, &mut all) })?;
        Ok((free, all))
    }

    /// The address of new memory with arbitrary contents.
    ///
    /// # Errors
    /// [`Error::Driver`], for which [`is_out_of_memory`] tells whether less would have been granted.
    pub fn allocate(&self, bytes: usize) -> Result<u64> {
        let mut address = 0;
        let functions = self.0.enter()?;
        // SAFETY: the pointer is valid for one address.
        self.0.check("cuMemAlloc", unsafe { (functions.cuMemAlloc_v2)(&mut address, bytes.max(1)) })?;
        Ok(address)
    }

    /// Gives memory back once all work up to here is done.
    ///
    /// # Safety
    /// `address` came from [`allocate`](Context::allocate) of this context and is not used any more.
    pub unsafe fn free(&self, address: u64) -> Result<()> {
        let functions = self.0.enter()?;
        // SAFETY: the caller's promise.
        self.0.check("cuMemFree", unsafe { (functions.cuMemFree_v2)(address) })
    }

    /// Copies from the host and waits until that is done.
    ///
    /// # Safety
    /// `address` lies in memory of this context, with as many bytes from there on.
    pub unsafe fn upload(&self, address: u64, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let functions = self.0.enter()?;
        // SAFETY: the caller's promise for the address; the source lives until after the wait below.
        let code =
            unsafe { (functions.cuMemcpyHtoDAsync_v2)(address, bytes.as_ptr().cast(), bytes.len(), self.0.stream) };
        // Waits even after a failure: nothing may read from `bytes` once this returns.
        self.0.check("cuMemcpyHtoDAsync", code).and(self.synchronize())
    }

    /// Copies to the host and waits until that is done.
    ///
    /// # Safety
    /// `address` lies in memory of this context, with as many bytes from there on.
    pub unsafe fn download(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let functions = self.0.enter()?;
        // SAFETY: the caller's promise for the address; the target lives until after the wait below.
        let code =
            unsafe { (functions.cuMemcpyDtoHAsync_v2)(bytes.as_mut_ptr().cast(), address, bytes.len(), self.0.stream) };
        self.0.check("cuMemcpyDtoHAsync", code).and(self.synchronize())
    }

    /// Copies on the GPU, after all earlier work; the host does not wait.
    ///
    /// # Safety
    /// Both addresses lie in memory of this context, with `bytes` bytes from there on that do not overlap.
    pub unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let functions = self.0.enter()?;
        // SAFETY: the caller's promise.
        let code = unsafe { (functions.cuMemcpyDtoDAsync_v2)(to, from, bytes, self.0.stream) };
        self.0.check("cuMemcpyDtoDAsync", code)
    }

    /// Sets every byte, after all earlier work; the host does not wait.
    ///
    /// # Safety
    /// `address` lies in memory of this context, with `bytes` bytes from there on.
    pub unsafe fn fill(&self, address: u64, value: u8, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let functions = self.0.enter()?;
        // SAFETY: the caller's promise.
        let code = unsafe { (functions.cuMemsetD8Async)(address, value, bytes, self.0.stream) };
        self.0.check("cuMemsetD8Async", code)
    }

    /// Waits until all work is done.
    ///
    /// # Errors
    /// [`Error::Driver`] for failures of that work: a kernel's wrong address shows here first.
    pub fn synchronize(&self) -> Result<()> {
        let functions = self.0.enter()?;
        // SAFETY: the stream lives as long as this context.
        self.0.check("cuStreamSynchronize", unsafe { (functions.cuStreamSynchronize)(self.0.stream) })
    }

    /// Loads machine code as NVRTC makes it.
    ///
    /// # Errors
    /// [`Error::Driver`] if the code is for another GPU or newer than the driver.
    pub fn load(&self, cubin: &[u8]) -> Result<LoadedModule> {
        if !is_whole(cubin) {
            return Err(Error::Value {
                op: "load",
                message: format!("{} bytes that are no machine code for a GPU, or not all of it", cubin.len()),
            });
        }
        let mut module = std::ptr::null_mut();
        let functions = self.0.enter()?;
        // SAFETY: the file is as long as its own tables say, and the driver keeps nothing of it but copies.
        let code = unsafe { (functions.cuModuleLoadData)(&mut module, cubin.as_ptr().cast()) };
        self.0.check("cuModuleLoadData", code)?;
        Ok(LoadedModule { context: self.clone(), module, functions: Mutex::default() })
    }

    /// The kernel of that name, looked up once.
    ///
    /// # Errors
    /// [`Error::Driver`] if there is none.
    pub fn function(&self, module: &LoadedModule, name: &str) -> Result<Function> {
        let mut known = module.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&function) = known.get(name) {
            return Ok(function);
        }
        let c_name = CString::new(name).map_err(|_| Error::Value {
            op: "function",
            message: format!("a kernel's name cannot hold a zero byte, as {name:?} does"),
        })?;
        let mut function = std::ptr::null_mut();
        let functions = self.0.enter()?;
        // SAFETY: the module is loaded as long as it is borrowed; the name ends in a zero byte.
        let code = unsafe { (functions.cuModuleGetFunction)(&mut function, module.module, c_name.as_ptr()) };
        self.0.check("cuModuleGetFunction", code)?;
        known.insert(name.to_owned(), Function(function));
        Ok(Function(function))
    }

    /// Lets a kernel be launched with so much shared memory a block.
    ///
    /// # Safety
    /// The function's module is loaded in this context.
    unsafe fn grant_shared(&self, function: Function, shared: usize) -> Result<()> {
        let most = self.0.properties.shared_per_block;
        if shared > most {
            return Err(Error::Value {
                op: "launch",
                message: format!("{shared} bytes of shared memory a block, {} has {most}", self.0.name),
            });
        }
        if shared > SHARED_BY_DEFAULT {
            let what = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let functions = self.0.enter()?;
            // SAFETY: the caller's promise.
            let code = unsafe { (functions.cuFuncSetAttribute)(function.0, what, shared as c_int) };
            self.0.check("cuFuncSetAttribute", code)?;
        }
        Ok(())
    }

    /// Starts a kernel after all earlier work; the host does not wait. `shared` is in bytes a block.
    ///
    /// # Safety
    /// The function's module is loaded in this context; `params` points to one value for each of the kernel's
    /// parameters, of its type; the kernel, so called, stays within live memory of this context.
    pub unsafe fn launch(
        &self,
        function: Function,
        grid: [u32; 3],
        block: [u32; 3],
        shared: usize,
        params: &mut [*mut c_void],
    ) -> Result<()> {
        // SAFETY: the caller's promise that the function is loaded.
        unsafe { self.grant_shared(function, shared)? };
        let functions = self.0.enter()?;
        let ([gx, gy, gz], [bx, by, bz]) = (grid, block);
        let (params, extra) = (params.as_mut_ptr(), std::ptr::null_mut());
        // SAFETY: the caller's promise; the parameters' values are copied during the call.
        let code = unsafe {
            (functions.cuLaunchKernel)(function.0, gx, gy, gz, bx, by, bz, shared as u32, self.0.stream, params, extra)
        };
        self.0.check("cuLaunchKernel", code)
    }
}

impl Inner {
    fn new(functions: Functions, name: String, ordinal: usize, driver: (u32, u32)) -> Result<Inner> {
        use sys::CUdevice_attribute as Attribute;
        let mut device = 0;
        // SAFETY: the pointer is valid for one handle; the driver was initialised when it was looked for.
        let code = unsafe { (functions.cuDeviceGet)(&mut device, ordinal as c_int) };
        functions.check(&name, "cuDeviceGet", code)?;
        let attribute = |what| {
            let mut value = 0;
            // SAFETY: the pointer is valid for one int, and the device was handed out just now.
            let code = unsafe { (functions.cuDeviceGetAttribute)(&mut value, what, device) };
            functions.check(&name, "cuDeviceGetAttribute", code).map(|()| value.unsigned_abs())
        };
        let properties = Properties {
            architecture: (
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            shared_per_block: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as usize,
            driver,
        };
        let mut context = std::ptr::null_mut();
        // SAFETY: as above; `Drop` releases what is retained here.
        let code = unsafe { (functions.cuDevicePrimaryCtxRetain)(&mut context, device) };
        functions.check(&name, "cuDevicePrimaryCtxRetain", code)?;
        let mut inner = Inner { functions, name, device, context, stream: std::ptr::null_mut(), properties };
        inner.stream = inner.new_stream()?;
        Ok(inner)
    }

    fn new_stream(&self) -> Result<sys::CUstream> {
        let mut stream = std::ptr::null_mut();
        let flags = sys::CUstream_flags_enum::CU_STREAM_NON_BLOCKING as u32;
        let functions = self.enter()?;
        // SAFETY: the pointer is valid for one handle.
        self.check("cuStreamCreate", unsafe { (functions.cuStreamCreate)(&mut stream, flags) })?;
        Ok(stream)
    }

    /// The driver's functions, with the context made the calling thread's own: any thread may call any time.
    fn enter(&self) -> Result<&Functions> {
        // SAFETY: the context is retained as long as this lives.
        self.check("cuCtxSetCurrent", unsafe { (self.functions.cuCtxSetCurrent)(self.context) })?;
        Ok(&self.functions)
    }

    fn check(&self, call: &'static str, code: u32) -> Result<()> {
        self.functions.check(&self.name, call, code)
    }
}

impl Drop for Inner {
    /// Failures are passed over: they are those of earlier work, or of a process that ends.
    fn drop(&mut self) {
        let functions = &self.functions;
        // SAFETY: the context is retained and the stream its own; neither is used again.
        unsafe {
            (functions.cuCtxSetCurrent)(self.context);
            if !self.stream.is_null() {
                (functions.cuStreamSynchronize)(self.stream);
                (functions.cuStreamDestroy_v2)(self.stream);
            }
            (functions.cuDevicePrimaryCtxRelease_v2)(self.device);
        }
    }
}

impl Drop for LoadedModule {
    fn drop(&mut self) {
        // Work that uses the code must be over.
        if self.context.synchronize().is_ok() {
            // SAFETY: the context is current since the wait, and the module is not used again.
            unsafe { (self.context.0.functions.cuModuleUnload)(self.module) };
        }
    }
}

/// Whether a request failed for want of memory only.
pub fn is_out_of_memory(error: &Error) -> bool {
    matches!(error, Error::Driver { name, .. } if name == OUT_OF_MEMORY)
}

/// Whether these bytes are an ELF file, as machine code is, that holds the tables its header names: the driver is given
/// no length and would read on.
fn is_whole(cubin: &[u8]) -> bool {
    let number = |at: usize, bytes: usize| -> Option<u64> {
        let field = cubin.get(at..at + bytes)?;
        Some(field.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte)))
    };
    // Where the table of sections starts, and the size and number of its rows.
    let end = || number(0x28, 8)?.checked_add(number(0x3a, 2)? * number(0x3c, 2)?);
    cubin.starts_with(b"\x7fELF\x02") && end().is_some_and(|end| end <= cubin.len() as u64)
}

/// Text the driver owns for as long as it is loaded.
///
/// # Safety
/// Null, or a text that ends in a zero byte.
unsafe fn text(pointer: *const std::ffi::c_char) -> Option<String> {
    // SAFETY: the caller's promise.
    (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_go_from_thread_to_thread() {
        fn both<T: Send + Sync>() {}
        both::<Context>();
        both::<LoadedModule>();
        both::<Function>();
        both::<Graph>();
    }

    #[test]
    fn a_gpu_that_is_not_there_is_an_error_that_says_what_is() {
        let error = Context::open(1000).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::NoDevice { .. }) && text.contains("cuda:1000"), "{text}");
        assert!(text.contains(&cuda::driver().to_string()), "{text}");
    }

    #[test]
    fn code_cut_short_is_not_given_to_the_driver() {
        let mut elf = vec![0; 64 + 2 * 64];
        elf[..5].copy_from_slice(b"\x7fELF\x02");
        elf[0x28] = 64;
        elf[0x3a] = 64;
        elf[0x3c] = 2;
        assert!(is_whole(&elf));
        for length in 0..elf.len() {
            assert!(!is_whole(&elf[..length]), "{length} bytes");
        }
        elf[0x28..0x30].fill(0xff);
        assert!(!is_whole(&elf));
    }

    #[test]
    fn want_of_memory_is_told_from_other_failures() {
        let error = |name: &str| Error::Driver {
            device: "cuda:0".into(),
            call: "cuMemAlloc",
            name: name.into(),
            description: "out of memory".into(),
            advice: "",
        };
        assert!(is_out_of_memory(&error(OUT_OF_MEMORY)) && !is_out_of_memory(&error("CUDA_ERROR_INVALID_VALUE")));
        let said = error(OUT_OF_MEMORY).to_string();
        assert_eq!(said, "cuda:0: cuMemAlloc failed with CUDA_ERROR_OUT_OF_MEMORY (out of memory)");
    }
}

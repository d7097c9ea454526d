//! The functions of the CUDA driver that Lenslet calls.
//!
//! cudarc loads the library and declares the types. Its functions are not called: they panic where a driver lacks one,
//! and they return an `enum` of the failures that one CUDA version knows, while newer drivers return others as well.

use super::text;
use crate::{Error, Result};
use cudarc::driver::sys;
use std::ffi::{c_char, c_int, c_uint, c_ulonglong, c_void};

/// Declares the functions and how to find them.
macro_rules! functions {
    ($($name:ident($($kind:ty),*);)*) => {
        #[allow(non_snake_case)]
        #[derive(Debug)]
        pub(super) struct Functions {
            $(pub(super) $name: unsafe extern "C" fn($($kind),*) -> u32,)*
            cuGetErrorName: unsafe extern "C" fn(u32, *mut *const c_char) -> u32,
            cuGetErrorString: unsafe extern "C" fn(u32, *mut *const c_char) -> u32,
        }

        // A signature that differs from cudarc's, which is made from cuda.h, does not compile.
        $(const _: unsafe fn($($kind),*) -> sys::CUresult = sys::$name;)*

        impl Functions {
            /// Looks them all up; the error is the name of the first that is missing. The driver must be there.
            pub(super) fn load() -> std::result::Result<Functions, &'static str> {
                // SAFETY: the caller has found the driver, and it is never unloaded.
                let library = unsafe { sys::culib() };
                Ok(Functions {
                    $(
                        // SAFETY: the signature is cuda.h's, as compared above.
                        $name: unsafe { *library.get(stringify!($name)).map_err(|_| stringify!($name))? },
                    )*
                    // SAFETY: the signatures are cuda.h's, with the failure as the number that it is.
                    cuGetErrorName: unsafe { *library.get("cuGetErrorName").map_err(|_| "cuGetErrorName")? },
                    // SAFETY: as above.
                    cuGetErrorString: unsafe { *library.get("cuGetErrorString").map_err(|_| "cuGetErrorString")? },
                })
            }
        }
    };
}

functions! {
    cuDeviceGet(*mut sys::CUdevice, c_int);
    cuDeviceGetAttribute(*mut c_int, sys::CUdevice_attribute, sys::CUdevice);
    cuDevicePrimaryCtxRetain(*mut sys::CUcontext, sys::CUdevice);
    cuDevicePrimaryCtxRelease_v2(sys::CUdevice);
    cuCtxSetCurrent(sys::CUcontext);
    cuStreamCreate(*mut sys::CUstream, c_uint);
    cuStreamDestroy_v2(sys::CUstream);
    cuStreamSynchronize(sys::CUstream);
    cuMemGetInfo_v2(*mut usize, *mut usize);
    cuMemAlloc_v2(*mut sys::CUdeviceptr, usize);
    cuMemFree_v2(sys::CUdeviceptr);
    cuMemcpyHtoDAsync_v2(sys::CUdeviceptr, *const c_void, usize, sys::CUstream);
    cuMemcpyDtoHAsync_v2(*mut c_void, sys::CUdeviceptr, usize, sys::CUstream);
    cuMemcpyDtoDAsync_v2(sys::CUdeviceptr, sys::CUdeviceptr, usize, sys::CUstream);
    cuMemsetD8Async(sys::CUdeviceptr, u8, usize, sys::CUstream);
    cuModuleLoadData(*mut sys::CUmodule, *const c_void);
    cuModuleUnload(sys::CUmodule);
    cuModuleGetFunction(*mut sys::CUfunction, sys::CUmodule, *const c_char);
    cuFuncSetAttribute(sys::CUfunction, sys::CUfunction_attribute, c_int);
    cuLaunchKernel(
        sys::CUfunction, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, sys::CUstream,
        *mut *mut c_void, *mut *mut c_void
    );
    cuGraphCreate(*mut sys::CUgraph, c_uint);
    cuGraphAddKernelNode_v2(
        *mut sys::CUgraphNode, sys::CUgraph, *const sys::CUgraphNode, usize, *const sys::CUDA_KERNEL_NODE_PARAMS
    );
    cuGraphAddMemcpyNode(
        *mut sys::CUgraphNode, sys::CUgraph, *const sys::CUgraphNode, usize, *const sys::CUDA_MEMCPY3D, sys::CUcontext
    );
    cuGraphExecKernelNodeSetParams_v2(sys::CUgraphExec, sys::CUgraphNode, *const sys::CUDA_KERNEL_NODE_PARAMS);
    cuGraphExecMemcpyNodeSetParams(
        sys::CUgraphExec, sys::CUgraphNode, *const sys::CUDA_MEMCPY3D, sys::CUcontext
    );
    cuGraphInstantiateWithFlags(*mut sys::CUgraphExec, sys::CUgraph, c_ulonglong);
    cuGraphLaunch(sys::CUgraphExec, sys::CUstream);
    cuGraphDestroy(sys::CUgraph);
    cuGraphExecDestroy(sys::CUgraphExec);
}

impl Functions {
    /// Turns what a function returned into an error with CUDA's own words.
    pub(super) fn check(&self, device: &str, call: &'static str, code: u32) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        let ask = |function: unsafe extern "C" fn(u32, *mut *const c_char) -> u32| {
            let mut words = std::ptr::null();
            // SAFETY: the pointer is valid for one pointer; what comes back is null or a constant of the driver.
            unsafe {
                function(code, &mut words);
                text(words)
            }
        };
        Err(Error::Driver {
            device: device.to_owned(),
            call,
            name: ask(self.cuGetErrorName).unwrap_or_else(|| format!("code {code}")),
            description: ask(self.cuGetErrorString).unwrap_or_else(|| "the driver has no words for it".into()),
            advice: advice(code),
        })
    }
}

/// What to do about failures that people meet.
fn advice(code: u32) -> &'static str {
    match code {
        2 => "; a smaller batch or recomputation of blocks needs less",
        200 | 209 | 218 | 222 => "; this code was made for another GPU or a newer driver",
        // After these the context is lost.
        700 | 702 | 710 | 714..=719 => "; a kernel went wrong and the process must be started again",
        900..=912 => "; --no-graph does without CUDA graphs",
        _ => "",
    }
}

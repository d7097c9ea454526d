//! Work collected for a GPU and handed out as a whole, on the emulator: the same results in the same order.

use kernels::elementwise::{axpy, cast, scale};
use kernels::gpu::{Arg, Emulation, Grid, Module, launch_own};
use kernels::{Buffer, DType, Device, Result, View, ViewMut};

const LEN: usize = 100;

fn device() -> Device {
    let settings = Emulation { check: true, ..Emulation::default() };
    Device::emulated(settings).expect("a C++ compiler")
}

fn view(buffer: &Buffer) -> View<'_> {
    View::new(buffer, DType::F32, 0, LEN)
}

fn view_mut(buffer: &mut Buffer) -> ViewMut<'_> {
    ViewMut::new(buffer, DType::F32, 0, LEN)
}

/// `Σ (2k + 1)` of k = 0 … 4 in every element, by way of buffers that are dropped while work on them may still wait.
fn work(device: &Device) -> Result<Buffer> {
    let mut sum = device.allocate(4 * LEN)?;
    view_mut(&mut sum).upload(&[0.0f32; LEN])?;
    let mut reused = device.allocate(4 * LEN)?;
    for k in 0..5 {
        let mut scaled = device.allocate(4 * LEN)?;
        view_mut(&mut reused).upload(&[k as f32; LEN])?;
        scale(view(&reused), &mut view_mut(&mut scaled), 2.0)?;
        axpy(view(&scaled), &mut view_mut(&mut sum), 1.0)?;
        view_mut(&mut reused).upload(&[1.0f32; LEN])?;
        cast(view(&reused), &mut view_mut(&mut scaled))?;
        axpy(view(&scaled), &mut view_mut(&mut sum), 1.0)?;
    }
    Ok(sum)
}

#[test]
fn collected_work_is_done_in_its_order() -> Result<()> {
    let device = device();
    for collecting in [false, true, true, false] {
        device.collect_work(collecting)?;
        let sum = work(&device)?;
        assert_eq!(view(&sum).download::<f32>()?, [25.0; LEN], "collecting {collecting}");
    }
    device.collect_work(true)?;
    drop(work(&device)?);
    assert_eq!(device.memory().in_use, 0);
    Ok(())
}

#[test]
fn failures_show_where_something_is_read_back() -> Result<()> {
    let device = device();
    let source = r#"
#include "prelude.cuh"
extern "C" __global__ void beyond(float* x) { x[threadIdx.x] = 1.0f; }
EXPORT_KERNEL(beyond)"#;
    let mut x = device.allocate(4 * LEN)?;
    device.collect_work(true)?;
    let args = [Arg::from(&view_mut(&mut x))];
    let module = Module::from_source("beyond", source);
    // SAFETY: the device checks, and ends the launch where it leaves the view.
    unsafe { launch_own(&device, &module, "beyond", Grid::new(1, 128), &args)? };
    let error = view(&x).download::<f32>().unwrap_err().to_string();
    assert!(error.contains("beyond") && error.contains("out of bounds"), "{error}");
    view_mut(&mut x).upload(&[3.0f32; LEN])?;
    assert_eq!(view(&x).download::<f32>()?, [3.0; LEN], "what failed is not tried again");
    Ok(())
}

#[test]
fn grids_beyond_cudas_limits_are_refused() -> Result<()> {
    let device = device();
    let mut x = device.allocate(4 * LEN)?;
    let module = Module::from_source("nothing", "#include \"prelude.cuh\"\n");
    let grid = Grid { blocks: [1, 1 << 16, 1], ..Grid::new(1, 32) };
    // SAFETY: such a launch is refused.
    let refused = unsafe { launch_own(&device, &module, "nothing", grid, &[Arg::from(&view_mut(&mut x))]) };
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("[1, 65536, 1] blocks") && error.contains("65535"), "{error}");
    Ok(())
}

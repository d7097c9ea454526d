//! Kernels compiled by NVRTC as this machine has it, and run by its GPU if it has one. Without, these tests say what
//! they looked for; with `CI` set, a missing NVRTC fails them.

use kernels::cuda::{self, Driver};
use kernels::gpu::cache::Cache;
use kernels::gpu::driver::{Context, Copy, Function, Launch, Node, is_out_of_memory};
use kernels::gpu::nvrtc::{Nvrtc, Source};
use kernels::gpu::ptxas::{Limits, Report};
use kernels::{Error, Result};
use std::ffi::c_void;
use std::time::Instant;

const ARCHITECTURES: [&str; 3] = ["sm_80", "sm_90a", "sm_100a"];

/// y += factor · x, with a header, a macro from the options, and shared memory.
const AXPY: &str = r#"
#include "types.cuh"
extern "C" __global__ void __launch_bounds__(THREADS) axpy(real* y, const real* x, real factor, int count) {
    __shared__ real staged[THREADS];
    int i = blockIdx.x * THREADS + threadIdx.x;
    staged[threadIdx.x] = i < count ? x[i] : 0;
    __syncthreads();
    if (i < count) y[i] += factor * staged[threadIdx.x];
}
extern "C" __global__ void sum_dynamic(real* y, int count) {
    extern __shared__ real terms[];
    for (int i = threadIdx.x; i < count; i += blockDim.x) terms[i] = i;
    __syncthreads();
    if (threadIdx.x == 0) {
        real sum = 0;
        for (int i = 0; i < count; i++) sum += terms[i];
        y[0] = sum;
    }
}
"#;

/// More live values than 32 registers hold.
const SPILLS: &str = r#"
extern "C" __global__ void __launch_bounds__(1024, 2) spills(float* y, const float* x, int n) {
    float v[64];
#pragma unroll
    for (int i = 0; i < 64; i++) v[i] = x[i * n + threadIdx.x];
#pragma unroll 1
    for (int k = 0; k < n; k++) {
#pragma unroll
        for (int i = 0; i < 64; i++) v[i] = v[i] * v[(i + 7) % 64] + x[k];
    }
#pragma unroll
    for (int i = 0; i < 64; i++) y[i * n + threadIdx.x] = v[i];
}
"#;

/// Reads an accumulator of wgmma before waiting for it.
const SERIALISED: &str = r#"
extern "C" __global__ void serialised(float* y, unsigned long long d) {
    float a = 0, b = 0, c = 0, e = 0;
    asm volatile("wgmma.fence.sync.aligned;");
    asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0,%1,%2,%3}, %4, %4, 1, 1, 1, 0, 0;"
                 : "+f"(a), "+f"(b), "+f"(c), "+f"(e) : "l"(d));
    a += y[1];
    asm volatile("wgmma.commit_group.sync.aligned;");
    asm volatile("wgmma.wait_group.sync.aligned 0;");
    y[threadIdx.x] = a + b + c + e;
}
"#;

fn nvrtc() -> Option<Nvrtc> {
    let driver = match cuda::driver() {
        Driver::Found { version, .. } => Some(version.0),
        _ => None,
    };
    match Nvrtc::find(driver) {
        Ok(found) => Some(found),
        Err(error) if std::env::var_os("CI").is_some() => panic!("CI is set, which calls for NVRTC: {error}"),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

fn axpy() -> Source<'static> {
    Source {
        name: "axpy.cu",
        text: AXPY,
        headers: &[("types.cuh", "typedef float real;\n")],
        options: vec!["-DTHREADS=256".into()],
    }
}

fn plain(name: &'static str, text: &'static str) -> Source<'static> {
    Source { name, text, headers: &[], options: Vec::new() }
}

#[test]
fn gpu_code_is_made_for_every_architecture() {
    let Some(nvrtc) = nvrtc() else { return };
    eprintln!("{nvrtc:?}, {}", nvrtc.identity());
    for architecture in ARCHITECTURES {
        let start = Instant::now();
        let compiled = nvrtc.compile(&axpy(), architecture).unwrap_or_else(|error| panic!("{error}"));
        let report = Report::parse(&compiled.log);
        let kernel = report.kernel("axpy").unwrap_or_else(|| panic!("{}", compiled.log));
        let (registers, bytes) = (kernel.registers, compiled.cubin.len());
        eprintln!("{architecture}: {registers} registers, {bytes} bytes of code, {:?}", start.elapsed());
        assert!(compiled.cubin.starts_with(b"\x7fELF") && (8..=32).contains(&registers));
        assert_eq!((kernel.shared, kernel.stack), (256 * 4, 0));
        assert!(report.violations(&Limits { threads: 256 }).is_empty(), "{}", compiled.log);
        let again = nvrtc.compile(&axpy(), architecture).unwrap();
        assert_eq!(again.cubin, compiled.cubin, "the same source makes the same code");
    }
}

#[test]
fn gpu_code_that_spills_or_serialises_is_caught() {
    let Some(nvrtc) = nvrtc() else { return };
    for architecture in ARCHITECTURES {
        let log = nvrtc.compile(&plain("spills.cu", SPILLS), architecture).unwrap().log;
        let found = Report::parse(&log).violations(&Limits { threads: 1024 });
        assert!(found.len() == 2 && found[0].contains("spills") && found[1].contains("stack"), "{found:?}\n{log}");
    }
    let log = nvrtc.compile(&plain("serialised.cu", SERIALISED), "sm_90a").unwrap().log;
    let found = Report::parse(&log).violations(&Limits { threads: 128 });
    assert!(!found.is_empty() && found.iter().all(|said| said.contains("(C75")), "{found:?}\n{log}");
}

#[test]
fn gpu_code_that_does_not_compile_says_why() {
    let Some(nvrtc) = nvrtc() else { return };
    let say = |text, architecture| nvrtc.compile(&plain("bad.cu", text), architecture).unwrap_err().to_string();
    let text = say("__global__ void k() { missing(); }", "sm_80");
    assert!(text.contains("bad.cu(1)") && text.contains("missing") && text.contains("sm_80"), "{text}");
    assert!(say("#include \"nowhere.cuh\"", "sm_80").contains("nowhere.cuh"));
    assert!(say("__global__ void k() { asm(\"bogus.op;\"); }", "sm_80").contains("bogus"));
    assert!(say("", "sm_1").contains("gpu-architecture"));
    assert!(say("", "compute_80").contains("sm_80 and not compute_80"));
    assert!(say("\0", "sm_80").contains("zero byte"));
}

#[test]
fn gpu_code_is_kept_between_runs() {
    let Some(nvrtc) = nvrtc() else { return };
    let folder = tempfile::tempdir().unwrap();
    let source = axpy();
    let key = source.key(&nvrtc.identity(), "sm_90a");
    let compile = |path: &std::path::Path| {
        let compiled = nvrtc.compile(&source, "sm_90a").map_err(|error| failed(error.to_string()))?;
        std::fs::write(path, compiled.cubin).map_err(|error| failed(error.to_string()))
    };
    let start = Instant::now();
    let first = Cache::at(folder.path()).get_or_make(&key, "cubin", compile, |_| true).unwrap();
    let made = start.elapsed();
    let start = Instant::now();
    let again = Cache::at(folder.path()).get_or_make(&key, "cubin", |_| Err(failed("made twice".into())), |_| true);
    eprintln!("made in {made:?}, found in {:?}", start.elapsed());
    assert_eq!(again.unwrap(), first);
    assert_ne!(key, source.key(&nvrtc.identity(), "sm_80"));
}

fn failed(message: String) -> Error {
    Error::Value { op: "test", message }
}

/// A GPU, and the code of [`AXPY`] for it.
fn gpu() -> Option<(Context, Vec<u8>)> {
    let context = match Context::open(0) {
        Ok(context) => context,
        Err(error) => {
            eprintln!("skipped: {error}");
            return None;
        }
    };
    let (major, minor) = context.properties().architecture;
    let suffix = if major >= 9 { "a" } else { "" };
    let code = nvrtc()?.compile(&axpy(), &format!("sm_{major}{minor}{suffix}"));
    Some((context, code.unwrap_or_else(|error| panic!("{error}")).cubin))
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

fn download(context: &Context, address: u64, count: usize) -> Vec<f32> {
    let mut bytes = vec![0; 4 * count];
    // SAFETY: every address here comes from `allocate`, with room for `count` values.
    unsafe { context.download(address, &mut bytes).unwrap() };
    bytes.chunks_exact(4).map(|value| f32::from_ne_bytes(value.try_into().unwrap())).collect()
}

fn launch_axpy(context: &Context, kernel: Function, y: u64, x: u64, count: usize) -> Result<()> {
    let (mut y, mut x, mut factor, mut count) = (y, x, 2.0_f32, count as i32);
    let mut params: [*mut c_void; 4] =
        [(&raw mut y).cast(), (&raw mut x).cast(), (&raw mut factor).cast(), (&raw mut count).cast()];
    let blocks = (count as u32).div_ceil(256);
    // SAFETY: the kernel takes two addresses, a float and an int, and stays below `count`.
    unsafe { context.launch(kernel, [blocks, 1, 1], [256, 1, 1], 0, &mut params) }
}

#[test]
fn gpu_work_runs_and_replays() {
    let Some((context, code)) = gpu() else { return };
    let module = context.load(&code).unwrap();
    let kernel = context.function(&module, "axpy").unwrap();
    assert_eq!(context.function(&module, "axpy").unwrap(), kernel);
    let count = 1000;
    let values: Vec<f32> = (0..count).map(|i| i as f32).collect();
    let [x, y, z] = [0; 3].map(|_| context.allocate(4 * count).unwrap());
    // SAFETY: all three addresses have room for `count` values and are freed at the end.
    unsafe {
        context.upload(x, &bytes(&values)).unwrap();
        context.fill(y, 0, 4 * count).unwrap();
        launch_axpy(&context, kernel, y, x, count).unwrap();
        context.copy(y, z, 4 * count).unwrap();
        assert_eq!(download(&context, z, count)[999], 2.0 * 999.0);

        let add = |factor: f32| {
            Node::Launch(Launch {
                function: kernel,
                grid: [(count as u32).div_ceil(256), 1, 1],
                threads: 256,
                shared: 0,
                params: vec![y, x, u64::from(factor.to_bits()), count as u64],
            })
        };
        let copy = Node::Copy(Copy { from: y, to: z, bytes: 4 * count });
        let course = |factor| vec![add(factor), copy.clone(), add(factor)];
        let mut graph = context.record(course(2.0)).unwrap();
        assert_eq!(download(&context, y, count)[999], 2.0 * 999.0, "recorded, not done");
        (0..2).for_each(|_| context.replay(&mut graph, course(2.0)).unwrap());
        context.replay(&mut graph, course(1.0)).unwrap();
        assert_eq!(download(&context, y, count)[999], 12.0 * 999.0);
        assert_eq!(download(&context, z, count)[999], 11.0 * 999.0);
        // Another thread, on which the context was never current.
        std::thread::scope(|scope| {
            scope.spawn(|| launch_axpy(&context, kernel, y, x, count).unwrap());
        });
        assert_eq!(download(&context, y, count)[1], 14.0);
        [x, y, z].iter().for_each(|&address| context.free(address).unwrap());
    }
}

#[test]
fn gpu_shared_memory_above_48_kib_is_granted() {
    let Some((context, code)) = gpu() else { return };
    let module = context.load(&code).unwrap();
    let kernel = context.function(&module, "sum_dynamic").unwrap();
    let most = context.properties().shared_per_block;
    let (mut y, mut count) = (context.allocate(4).unwrap(), (96 << 10) / 4);
    let mut params: [*mut c_void; 2] = [(&raw mut y).cast(), (&raw mut count).cast::<i32>().cast()];
    // SAFETY: the kernel takes an address and an int, and writes one value.
    let mut launch = |shared| unsafe { context.launch(kernel, [1, 1, 1], [256, 1, 1], shared, &mut params) };
    launch(96 << 10).unwrap();
    let error = launch(most + 1).unwrap_err().to_string();
    assert!(error.contains(&most.to_string()), "{error}");
    // Above 2^24 a sum of f32 rounds: compared with the same sum here.
    assert_eq!(download(&context, y, 1)[0], (0..24576).fold(0.0, |sum: f32, i| sum + i as f32));
}

#[test]
fn gpu_failures_are_errors_in_cudas_words() {
    let Some((context, code)) = gpu() else { return };
    let error = context.allocate(1 << 50).unwrap_err();
    assert!(is_out_of_memory(&error) && error.to_string().contains("out of memory"), "{error}");
    let module = context.load(&code).unwrap();
    let error = context.function(&module, "missing").unwrap_err().to_string();
    assert!(error.contains("cuModuleGetFunction") && error.contains("CUDA_ERROR_NOT_FOUND"), "{error}");
    assert!(context.load(&code[..code.len() / 2]).is_err());
    let mut foreign = code.clone();
    foreign[0x12] ^= 0xff;
    let error = context.load(&foreign).map(drop).unwrap_err().to_string();
    assert!(error.contains("cuModuleLoadData"), "{error}");

    let (free, all) = context.memory().unwrap();
    assert!(free <= all && all > 0);
}

//! What the wrappers of `ptx.cuh` answer on a device: recorded on a GPU once, replayed by the emulator ever after. Without
//! it kernel and emulator could share one wrong belief about a fragment's layout.

use super::module::{Grid, Module, args};
use crate::{DType, Device, Result, View, ViewMut};
use half::bf16;

/// Lanes of a warp.
pub const LANES: usize = 32;
/// Words each lane reads, and writes.
pub const PER_LANE: usize = 8;

/// A kernel of `golden.cu` or `golden_bulk.cu`, which runs a wrapper or a few, and its words: lane i's begin at i · [`PER_LANE`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Golden {
    /// The kernel.
    pub kernel: &'static str,
    /// What the lanes read.
    pub input: Vec<u32>,
    /// What they wrote; zero where they write nothing.
    pub output: Vec<u32>,
}

/// Runs all that the device has instructions for.
pub fn record(device: &Device) -> Result<Vec<Golden>> {
    let scrambled = |i: usize| (i as u32).wrapping_mul(0x9e37_79b9);
    let bf16 = |x: f32| u32::from(bf16::from_f32(x).to_bits());
    let bf16_pair = |i: usize| bf16(integer(2 * i)) | bf16(integer(2 * i + 1)) << 16;
    let plain = Module::new("golden");
    let mut golden = vec![
        run(device, &plain, "convert", &number)?,
        run(device, &plain, "move", &scrambled)?,
        run(device, &plain, "product_bf16", &bf16_pair)?,
        run(device, &plain, "product_tf32", &|i| integer(i).to_bits())?,
    ];
    let bulk = Module::new("golden_bulk");
    if device.gpu().is_some_and(|gpu| gpu.runs(&bulk)) {
        golden.push(run(device, &bulk, "bulk", &scrambled)?);
    }
    Ok(golden)
}

/// Whole numbers from −8 to 8: their products' sums are exact, whatever the order.
fn integer(i: usize) -> f32 {
    ((i * 29 + i / 7) % 17) as f32 - 8.0
}

/// Singles of every size, ties between two roundings among them, and bits of halves.
fn number(i: usize) -> u32 {
    let bits = (i as u32).wrapping_mul(0x9e37_79b9);
    match i % PER_LANE {
        0 => (bits & 0x807f_ffff) | (100 + i as u32 / 4) << 23,
        // Halfway between two bf16 numbers, and for small i between two f16 numbers.
        1 => 0x3f80_8000 + ((i as u32) << 12),
        _ => bits >> 16,
    }
}

const WORDS: usize = LANES * PER_LANE;
/// Shared memory for the input and as much again.
const SHARED: usize = 2 * 4 * WORDS;

fn run(device: &Device, module: &Module, kernel: &'static str, word: &dyn Fn(usize) -> u32) -> Result<Golden> {
    let input: Vec<u32> = (0..WORDS).map(word).collect();
    let mut buffers = [device.allocate(4 * WORDS)?, device.allocate(4 * WORDS)?];
    let [from, to] = &mut buffers;
    ViewMut::new(from, DType::I32, 0, WORDS).upload::<i32>(bytemuck::cast_slice(&input))?;
    let mut out = ViewMut::new(to, DType::I32, 0, WORDS);
    out.upload(&[0i32; WORDS])?;
    let grid = Grid { shared: SHARED, ..Grid::new(1, LANES) };
    super::launch(device, module, kernel, grid, args![View::new(from, DType::I32, 0, WORDS), &out])?;
    let output: Vec<i32> = View::new(to, DType::I32, 0, WORDS).download()?;
    Ok(Golden { kernel, input, output: bytemuck::cast_slice(&output).to_vec() })
}

/// What GPUs answered, by architecture, as [`to_text`] writes it; an older GPU lacks some lines.
const RECORDED: &[(&str, &str)] = &[("sm_90", include_str!("sm_90.txt"))];

/// The answers that are not those that GPUs gave, a line for each.
pub fn differences(golden: &[Golden]) -> Vec<String> {
    let mut wrong = Vec::new();
    for one in golden {
        let (line, start) = (to_text(std::slice::from_ref(one)), format!("{} ", one.kernel));
        for (architecture, text) in RECORDED {
            let recorded = text.lines().find(|recorded| recorded.starts_with(&start));
            if recorded.is_some_and(|recorded| recorded != line.trim_end()) {
                wrong.push(format!("golden/{}: another answer than {architecture} gave", one.kernel));
            }
        }
    }
    wrong
}

/// As text: one line per kernel, its name and its output in hexadecimal.
pub fn to_text(golden: &[Golden]) -> String {
    let words = |words: &[u32]| words.iter().map(|word| format!(" {word:x}")).collect::<String>();
    golden.iter().map(|one| format!("{}{}\n", one.kernel, words(&one.output))).collect()
}

pub(super) fn modules() -> Vec<(Module, usize)> {
    ["golden", "golden_bulk"].map(|family| (Module::new(family), LANES)).to_vec()
}

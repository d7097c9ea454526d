//! Tile products of pairs of bf16 (Intel AMX), in assembly: the compiler has no stable intrinsics for them. All tiles are
//! 16 rows of 64 bytes: 16 sums, or 16 steps.

use super::tile::Prefetch;

/// Steps that one tile product takes.
pub(super) const STEPS: usize = 16;
/// Rows, and columns, of one tile of sums.
const SIDE: usize = 16;

/// A block of up to 2 × 2 tiles: what [`multiply`] computes.
#[derive(Clone, Copy)]
pub(super) struct Block {
    /// First row of `a`, a pair per element, and bytes between rows.
    pub(super) a: *const u8,
    pub(super) a_stride: usize,
    /// First step of `b`, and bytes between steps.
    pub(super) b: *const u8,
    pub(super) b_stride: usize,
    /// Sums, and bytes between their rows.
    pub(super) sums: *mut u8,
    pub(super) sums_stride: usize,
    /// Tile products along `k`.
    pub(super) groups: usize,
    /// Whether the sums start from zero.
    pub(super) fresh: bool,
    pub(super) prefetch: Prefetch<f32>,
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod asm {
    use super::{Block, SIDE, STEPS};
    use std::arch::asm;
    use std::arch::x86_64::__cpuid_count;
    use std::sync::OnceLock;

    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XFEATURE_XTILEDATA: i64 = 18;

    /// Whether the processor has tiles of bf16 and the system lets this process use them.
    pub(in super::super) fn available() -> bool {
        static AVAILABLE: OnceLock<bool> = OnceLock::new();
        *AVAILABLE.get_or_init(|| {
            let has_leaf = __cpuid_count(0, 0).eax >= 7;
            let features = if has_leaf { __cpuid_count(7, 0).edx } else { 0 };
            let (amx_bf16, amx_tile) = (features >> 22 & 1 == 1, features >> 24 & 1 == 1);
            amx_bf16 && amx_tile && permitted()
        })
    }

    /// Asks Linux for the tile registers, which it hands out per process.
    fn permitted() -> bool {
        let mut result = ARCH_PRCTL;
        // SAFETY: the call takes two integers and changes nothing but this process's permissions.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") result,
                in("rdi") ARCH_REQ_XCOMP_PERM,
                in("rsi") XFEATURE_XTILEDATA,
                lateout("rcx") _,
                lateout("r11") _,
            );
        }
        result == 0
    }

    /// The thread's tiles, configured while this lives.
    pub(in super::super) struct Tiles(());

    impl Tiles {
        /// Configures eight tiles.
        pub(in super::super) fn new() -> Tiles {
            assert!(available(), "tiles asked for where there are none");
            let mut config = [0u8; 64];
            config[0] = 1;
            for tile in 0..8 {
                config[16 + 2 * tile] = 64;
                config[48 + tile] = SIDE as u8;
            }
            // SAFETY: a valid configuration of 64 bytes, on a processor that has tiles.
            unsafe { asm!("ldtilecfg [{}]", in(reg) config.as_ptr(), options(nostack, readonly)) }
            Tiles(())
        }

        /// `sums (16·ROWS, 16·COLS) = [sums +] a·b`.
        ///
        /// # Safety
        /// The block's pointers must reach as far as its sizes say.
        #[inline(always)]
        pub(in super::super) unsafe fn multiply(&self, rows: usize, cols: usize, block: Block) {
            // SAFETY: the caller's promise.
            unsafe {
                match (rows, cols) {
                    (1, 1) => one(block),
                    (1, _) => wide(block),
                    (_, 1) => tall(block),
                    _ => square(block),
                }
            }
        }

        /// `rounds` products into each of four tiles, all of zeros; the floating-point operations in them.
        pub(in super::super) fn saturate(&self, rounds: usize) -> f64 {
            for _ in 0..rounds {
                // SAFETY: tiles alone, configured while `self` lives.
                unsafe {
                    asm!(
                        "tdpbf16ps tmm0, tmm4, tmm6",
                        "tdpbf16ps tmm1, tmm4, tmm7",
                        "tdpbf16ps tmm2, tmm5, tmm6",
                        "tdpbf16ps tmm3, tmm5, tmm7",
                        options(nomem, nostack)
                    );
                }
            }
            (rounds * 4 * 2 * SIDE * SIDE * 2 * STEPS) as f64
        }
    }

    impl Drop for Tiles {
        fn drop(&mut self) {
            // SAFETY: puts the thread's tiles back to their initial state.
            unsafe { asm!("tilerelease", options(nomem, nostack)) }
        }
    }

    /// Defines a block's loop. Tiles 0 to 3 hold sums, 4 and 5 `a`, 6 and 7 `b`; the compiler never uses them, so they
    /// need no clobbers. Operands that a smaller block has no use for are named in a comment, as `asm!` insists.
    macro_rules! block {
        ($name:ident, load $load:tt, zero $zero:tt, step $step:tt, store $store:tt) => {
            #[inline(always)]
            unsafe fn $name(block: Block) {
                let (low_sums, low_a) =
                    (block.sums.wrapping_add(SIDE * block.sums_stride), block.a.wrapping_add(SIDE * block.a_stride));
                // SAFETY: the caller of `multiply` vouches for the block's memory.
                unsafe {
                    if block.fresh {
                        block!(@asm $zero);
                    } else {
                        block!(@asm $load, c = in(reg) block.sums, d = in(reg) low_sums, w = in(reg) block.sums_stride);
                    }
                    let prefetch = block.prefetch.spread(block.groups);
                    let mut a = block.a;
                    let mut low_a = low_a;
                    let mut b = block.b;
                    for group in 0..block.groups {
                        prefetch.group(group);
                        block!(@asm $step,
                            a = in(reg) a, l = in(reg) low_a, s = in(reg) block.a_stride,
                            b = in(reg) b, t = in(reg) block.b_stride);
                        a = a.wrapping_add(64);
                        low_a = low_a.wrapping_add(64);
                        b = b.wrapping_add(SIDE * block.b_stride);
                    }
                    block!(@asm $store, c = in(reg) block.sums, d = in(reg) low_sums, w = in(reg) block.sums_stride);
                }
            }
        };
        (@asm [$($line:literal),*] $(, $($operands:tt)*)?) => {
            asm!($($line),* $(, $($operands)*)?, options(nostack))
        };
    }

    block!(one,
        load ["tileloadd tmm0, [{c} + {w}] # {d}"],
        zero ["tilezero tmm0"],
        step ["tileloadd tmm4, [{a} + {s}]", "tileloadd tmm6, [{b} + {t}]", "tdpbf16ps tmm0, tmm4, tmm6 # {l}"],
        store ["tilestored [{c} + {w}], tmm0 # {d}"]);
    block!(wide,
        load ["tileloadd tmm0, [{c} + {w}]", "tileloadd tmm1, [{c} + {w} + 64] # {d}"],
        zero ["tilezero tmm0", "tilezero tmm1"],
        step ["tileloadd tmm4, [{a} + {s}]",
            "tileloadd tmm6, [{b} + {t}]", "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {t} + 64]", "tdpbf16ps tmm1, tmm4, tmm7 # {l}"],
        store ["tilestored [{c} + {w}], tmm0", "tilestored [{c} + {w} + 64], tmm1 # {d}"]);
    block!(tall,
        load ["tileloadd tmm0, [{c} + {w}]", "tileloadd tmm2, [{d} + {w}]"],
        zero ["tilezero tmm0", "tilezero tmm2"],
        step ["tileloadd tmm4, [{a} + {s}]", "tileloadd tmm6, [{b} + {t}]", "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{l} + {s}]", "tdpbf16ps tmm2, tmm5, tmm6"],
        store ["tilestored [{c} + {w}], tmm0", "tilestored [{d} + {w}], tmm2"]);
    block!(square,
        load ["tileloadd tmm0, [{c} + {w}]", "tileloadd tmm1, [{c} + {w} + 64]",
            "tileloadd tmm2, [{d} + {w}]", "tileloadd tmm3, [{d} + {w} + 64]"],
        zero ["tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3"],
        step ["tileloadd tmm4, [{a} + {s}]",
            "tileloadd tmm6, [{b} + {t}]", "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {t} + 64]", "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{l} + {s}]", "tdpbf16ps tmm2, tmm5, tmm6", "tdpbf16ps tmm3, tmm5, tmm7"],
        store ["tilestored [{c} + {w}], tmm0", "tilestored [{c} + {w} + 64], tmm1",
            "tilestored [{d} + {w}], tmm2", "tilestored [{d} + {w} + 64], tmm3"]);
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod asm {
    use super::Block;

    pub(in super::super) fn available() -> bool {
        false
    }

    pub(in super::super) struct Tiles(());

    impl Tiles {
        pub(in super::super) fn new() -> Tiles {
            unreachable!("there are no tiles here")
        }

        pub(in super::super) fn saturate(&self, _: usize) -> f64 {
            unreachable!("there are no tiles here")
        }

        pub(in super::super) unsafe fn multiply(&self, _: usize, _: usize, _: Block) {
            unreachable!("there are no tiles here")
        }
    }
}

pub(super) use asm::{Tiles, available};

//! On which shapes the kernels are timed.

use kernels::attention::Mask;
use kernels::gemm::{Gemm, Layout};

/// Which shapes are timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Grid {
    /// Shapes an emulator ends in minutes: they show that a bench works, not how fast anything is.
    Tiny,
    /// Those of small models, quick on a CPU.
    Small,
    /// Those of a ViT-L with a language model of a billion parameters, for GPUs.
    Full,
}

/// (batch, queries, keys, query heads, key heads, head width) and the mask.
pub(super) type Heads = ([usize; 6], Mask);

/// The sizes of every family's cases.
pub(super) struct Shapes {
    /// Elements of a copy; the pointwise kernels take a quarter.
    pub(super) elements: usize,
    pub(super) products: Vec<Gemm>,
    pub(super) attentions: Vec<Heads>,
    /// Rows and their width.
    pub(super) norms: Vec<[usize; 2]>,
    /// Rows, width and vocabulary of linear + cross-entropy.
    pub(super) classifiers: Vec<[usize; 3]>,
    /// Pairs and their width.
    pub(super) pairs: Vec<[usize; 2]>,
    /// Parameters that an optimiser steps.
    pub(super) parameters: Vec<usize>,
}

impl Grid {
    pub(super) fn shapes(self) -> Shapes {
        match self {
            Grid::Tiny => tiny(),
            Grid::Small => small(),
            Grid::Full => full(),
        }
    }
}

fn tiny() -> Shapes {
    Shapes {
        elements: 1 << 16,
        products: products(&[128], &[[130, 96, 64]]),
        attentions: vec![([1, 96, 96, 2, 1, 64], Mask::Causal), ([2, 33, 65, 2, 2, 72], Mask::Full)],
        norms: vec![[64, 256]],
        classifiers: vec![[64, 64, 500]],
        pairs: vec![[64, 64]],
        parameters: vec![10_000],
    }
}

fn small() -> Shapes {
    Shapes {
        elements: 1 << 25,
        products: products(
            &[1024, 256, 512],
            // A ViT's layers of 384, and those of the steps that are timed whole: up in S, down in M, up and down in L.
            &[[2304, 384, 384], [2080, 512, 128], [2320, 256, 1024], [197, 3072, 768], [160, 576, 1536]],
        ),
        attentions: vec![
            ([32, 124, 124, 4, 4, 32], Mask::Causal),
            ([32, 36, 36, 4, 4, 32], Mask::Full),
            ([2, 257, 257, 16, 16, 64], Mask::Full),
        ],
        norms: vec![[4096, 256], [4096, 768]],
        classifiers: vec![[1024, 256, 8000], [128, 576, 49_152]],
        pairs: vec![[256, 128], [4096, 512]],
        parameters: vec![10_000_000],
    }
}

fn full() -> Shapes {
    Shapes {
        elements: 1 << 28,
        products: products(
            &[8192, 2048, 4096],
            &[[32 * 257, 3072, 1024], [32 * 257, 1024, 1024], [32 * 577, 1024, 4096], [4096, 5632, 2048]],
        ),
        attentions: vec![
            ([32, 257, 257, 16, 16, 64], Mask::Full),
            ([32, 577, 577, 16, 16, 64], Mask::Full),
            ([16, 729, 729, 16, 16, 72], Mask::Full),
            ([16, 257, 257, 16, 16, 80], Mask::Full),
            ([32, 32, 257, 12, 12, 64], Mask::Full),
            ([2, 2048, 2048, 32, 8, 64], Mask::Causal),
            ([1, 8192, 8192, 32, 8, 128], Mask::Causal),
        ],
        norms: [768, 1024, 2048, 4096].map(|dim| [16384, dim]).to_vec(),
        classifiers: vec![[4096, 2048, 32_000], [4096, 4096, 128_256]],
        pairs: vec![[4096, 512], [32768, 768]],
        parameters: vec![100_000_000],
    }
}

/// Squares, then linear layers by rows, output and input width: forward, input gradient, weight gradient.
fn products(squares: &[usize], linear: &[[usize; 3]]) -> Vec<Gemm> {
    let squares = squares.iter().map(|&n| Gemm::new(Layout::Nn, n, n, n));
    let layers = linear.iter().flat_map(|&[rows, output, input]| {
        [
            Gemm::new(Layout::Nt, rows, output, input),
            Gemm::new(Layout::Nn, rows, input, output),
            Gemm::new(Layout::Tn, output, input, rows),
        ]
    });
    squares.chain(layers).collect()
}

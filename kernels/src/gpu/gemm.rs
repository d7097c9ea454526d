//! Launches of `cuda/gemm.cu`.

//! Launches of `cuda/reduce.cu`.

//! Launches of `cuda/copy.cu`.

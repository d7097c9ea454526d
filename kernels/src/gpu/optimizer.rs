//! Launches of `cuda/optimizer.cu`.

//! Launches of `cuda/loss.cu`.

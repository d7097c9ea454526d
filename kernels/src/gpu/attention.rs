//! Launches of `cuda/attention.cu`.

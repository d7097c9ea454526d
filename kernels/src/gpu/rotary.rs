//! Launches of `cuda/rotary.cu`.

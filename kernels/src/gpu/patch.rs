//! Launches of `cuda/patch.cu`.

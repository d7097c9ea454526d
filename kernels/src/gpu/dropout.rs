//! Launches of `cuda/dropout.cu`.

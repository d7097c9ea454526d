//! Launches of `cuda/norm.cu`.

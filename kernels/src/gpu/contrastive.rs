//! Launches of `cuda/contrastive.cu`.

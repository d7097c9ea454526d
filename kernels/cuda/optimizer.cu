// AdamW and the norm of gradients, see kernels/src/optimizer.rs.
#include "prelude.cuh"

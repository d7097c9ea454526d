// Copies of strided blocks, see kernels/src/copy.rs.
#include "prelude.cuh"

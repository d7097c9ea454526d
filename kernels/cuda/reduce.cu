// Sums along an axis, see kernels/src/reduce.rs.
#include "prelude.cuh"

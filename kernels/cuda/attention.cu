// Scaled dot-product attention, forward and backward, see kernels/src/attention.rs.
#include "prelude.cuh"

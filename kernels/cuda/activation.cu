// Pointwise activations and the SiLU gate, see kernels/src/activation.rs.
#include "prelude.cuh"

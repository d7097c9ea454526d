// Rotary position embedding, see kernels/src/rotary.rs.
#include "prelude.cuh"

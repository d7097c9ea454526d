// Dropout, see kernels/src/dropout.rs.
#include "prelude.cuh"

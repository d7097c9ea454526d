// Linear layer and cross-entropy in one, by blocks of rows, see kernels/src/loss.rs.
#include "prelude.cuh"

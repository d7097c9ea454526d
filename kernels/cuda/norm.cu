// Layer norm, RMS norm, rows of unit length, see kernels/src/norm.rs.
#include "prelude.cuh"

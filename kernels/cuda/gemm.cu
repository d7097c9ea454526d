// Matrix products with a fused epilogue, see kernels/src/gemm.rs.
#include "prelude.cuh"

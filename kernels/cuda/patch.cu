// Images as rows of patches, see kernels/src/patch.rs.
#include "prelude.cuh"

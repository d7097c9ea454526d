// CLIP's and SigLIP's losses from blocks of rows of the score matrix, see kernels/src/contrastive.rs.
#include "prelude.cuh"

// Rows of a table by number, and the derivative to the table, see kernels/src/embedding.rs.
#include "prelude.cuh"

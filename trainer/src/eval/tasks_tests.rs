//! Readers of benchmarks: what they understand, and that nothing makes them panic.

//! Only the benchmarks of this package have code.

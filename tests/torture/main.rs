//! Tests that search for failures: injected faults, futures dropped at every poll, a soak, and
//! mutated input.
//!
//! `cargo test --test torture` runs a sample. With the environment variable `FANOUT_TORTURE=long`,
//! every case is run. `FANOUT_TORTURE_SEED=<number>` selects another sample.

// Not every test uses all of it.
#[allow(dead_code, unused_macros, unused_imports)]
#[path = "../api/support/mod.rs"]
mod support;

mod dropped_futures;
mod fault_injection;
mod settings;

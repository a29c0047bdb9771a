//! Tests that search for failures: injected faults, futures dropped at every poll, a soak, and
//! mutated input.
//!
//! `cargo test --test torture` runs a sample. With the environment variable `FANOUT_TORTURE=long`,
//! every case is run. `FANOUT_TORTURE_SEED=<number>` selects another sample.
//! `FANOUT_TORTURE_SOAK=<number>` sets the number of requests of the soak, and
//! `FANOUT_TORTURE_FUZZ=<number>` the number of mutations of each kind of input.

// Not every test uses all of it.
#[allow(dead_code)]
#[path = "../api/support/mod.rs"]
mod support;

mod dropped_futures;
mod fault_injection;
#[allow(unreachable_pub)]
mod fuzz_targets;
mod mutations;
mod panics;
mod security_table;
mod settings;
mod soak;

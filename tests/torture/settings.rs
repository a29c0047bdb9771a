//! The settings of a run, from environment variables.

use std::env;

/// Whether everything is run instead of a sample.
pub(crate) fn is_long() -> bool {
    env::var("FANOUT_TORTURE").is_ok_and(|form| form == "long")
}

/// The seed of every random choice. It is the same in each run unless the environment sets another.
pub(crate) fn seed() -> u64 {
    number("FANOUT_TORTURE_SEED", 1)
}

/// The number of runs: from the environment variable `name`, or else `long` or `short`, depending
/// on the form.
pub(crate) fn runs(name: &str, short: u64, long: u64) -> u64 {
    number(name, if is_long() { long } else { short })
}

/// The number in the environment variable `name`, or `default` without the variable.
fn number(name: &str, default: u64) -> u64 {
    match env::var(name) {
        Ok(number) => number
            .parse()
            .unwrap_or_else(|_| panic!("{name} is a number")),
        Err(_) => default,
    }
}

//! Mutations of valid input, passed to the functions that the fuzz targets of `fuzz/` call.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::fuzz_targets::{TARGETS, Target};
use crate::settings;

/// The runs of each function. `FANOUT_TORTURE_FUZZ=<number>` sets another number.
const RUNS: u64 = 3_000;
/// The runs of the long form.
const LONG_RUNS: u64 = 10_000_000;

/// Bytes that decide something in one of the formats.
const SPECIAL_BYTES: &[u8] = b"\0\x01\x7f\x80\xff\r\n\t :;,=\"<>/?#%@[]09aZ";
/// Text that decides something in one of the formats.
const SPECIAL_TEXTS: [&[u8]; 12] = [
    b"\r\n",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"content-length: ",
    b"transfer-encoding: chunked\r\n",
    b"18446744073709551616",
    b"-1",
    b"\xc3\xa9",
    b"://",
    b"%00",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
];

fn mutate(rng: &mut fastrand::Rng, target: &Target) -> Vec<u8> {
    let seed = |rng: &mut fastrand::Rng| *rng.choice(target.seeds).expect("a seed");
    let mut data = seed(rng).to_vec();
    for _ in 0..rng.usize(1..=6) {
        let start = rng.usize(..=data.len());
        let end = data.len().min(start + rng.usize(..16));
        match rng.u32(..9) {
            0 if end > start => data[start] ^= 1 << rng.u32(..8),
            1 if end > start => data[start] = *rng.choice(SPECIAL_BYTES).expect("a byte"),
            2 if end > start => data[start] = rng.u8(..),
            3 => drop(data.drain(start..end)),
            4 => {
                let copy = data[start..end].to_vec();
                data.splice(start..start, copy.repeat(rng.usize(1..=20)));
            }
            5 => {
                let text = *rng.choice(&SPECIAL_TEXTS).expect("a text");
                data.splice(start..start, text.iter().copied());
            }
            6 => {
                let other = seed(rng);
                data.truncate(start);
                data.extend_from_slice(&other[rng.usize(..=other.len())..]);
            }
            7 => data.truncate(start),
            _ => data.insert(start, rng.u8(..)),
        }
    }
    data
}

fn run(name: &str) {
    crate::panics::count();
    let target = TARGETS
        .iter()
        .find(|target| target.name == name)
        .expect("a target");
    for seed in target.seeds {
        (target.run)(seed);
    }
    let runs = settings::runs("FANOUT_TORTURE_FUZZ", RUNS, LONG_RUNS);
    let mut rng = fastrand::Rng::with_seed(settings::seed());
    for number in 0..runs {
        let data = mutate(&mut rng, target);
        let result = catch_unwind(AssertUnwindSafe(|| (target.run)(&data)));
        let is_passed = result.is_ok() && crate::panics::total() == 0;
        let text = data.escape_ascii();
        assert!(
            is_passed,
            "with the seed {}, input {number}: b\"{text}\"",
            settings::seed()
        );
    }
}

/// Declares one test for each function.
macro_rules! mutation_tests {
    ($($test:ident: $target:literal;)*) => {
        $(
            #[test]
            fn $test() {
                run($target);
            }
        )*
    };
}

mutation_tests! {
    mutated_http1_responses_cause_no_panic: "http1_response";
    mutated_http2_frames_cause_no_panic: "http2_frames";
    mutated_headers_cause_no_panic: "headers";
    mutated_proxy_replies_cause_no_panic: "proxy_reply";
    mutated_coded_bodies_cause_no_panic: "decoders";
    mutated_urls_cause_no_panic: "urls";
}

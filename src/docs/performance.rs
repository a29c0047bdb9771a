//! The cost of a request, how it was measured, and how to reduce it.
//!
//! # The cost of a request
//!
//! About half of the CPU time of a request is two system calls, one write and one read. The rest is
//! parsing, copying and scheduling. The table and the plot show CPU time per request (user and
//! system) against nginx on loopback. "Kept" clients keep status, headers and body of every
//! response until the end. "Dropped" clients drop each response at once.
#![doc = include_str!("performance/peers.md")]
//!
#![doc = include_str!("performance/peers.svg")]
//!
//! The bars are microseconds of CPU time per request, for 100-byte responses and 64 requests in
//! flight.
//!
//! # How it was measured
//!
//! The script `benches/peers/run` in the repository starts nginx on one core and runs every client
//! on the other. Clients on the default runtime use both cores. There are several rounds, the
//! clients take turns within a round, and the result is the median. All Rust clients are built into
//! one program with the same settings, send the same headers, and are measured from the creation of
//! the client to the last result. Limits, timeouts and retries are at their defaults.
//! `benches/peers/RESULTS.md` has all cases, with system calls, memory and clients in other
//! languages. Machines differ, so trust the ratios, not the microseconds.
//!
//! # How to reduce it
//!
//! - **Runtime.** The current-thread runtime has the lowest cost per request. The default runtime
//!   uses all cores at a higher cost per request. In a program that does nothing else, spawn the
//!   batch: a batch that is polled in `block_on` itself has an additional wake-up for every third
//!   request.
//! - **Concurrency.** A request takes less CPU time at concurrency 64 than at 1, because one poll
//!   of the system's event queue serves many sockets. Beyond the capacity of the server and the
//!   network, a higher concurrency only uses more memory.
//!   [`Concurrency::adaptive`](crate::Concurrency::adaptive) finds the right value for each host.
//! - **HTTP/2.** Requests on one connection share system calls, which saves CPU time if responses
//!   are small and the server has a good HTTP/2 implementation. Large bodies take less CPU time
//!   over HTTP/1.1, which has no frames and no second flow control.
//! - **Results.** [`gather`](crate::Fetcher::gather) keeps every response.
//!   [`as_completed`](crate::Fetcher::as_completed) keeps only what you keep. A kept response
//!   occupies its body, its packed headers and about 200 bytes. Headers are unpacked when they are
//!   first read, and stay unpacked.
//! - **Allocator.** A request makes about fifteen allocations, most of them small and short-lived.
//!   On the default runtime, most results are freed on another thread than the one that allocated
//!   them, and the locks of glibc's allocator take about a tenth of the CPU time. mimalloc or
//!   jemalloc as `#[global_allocator]` avoid this. On a current-thread runtime, mimalloc and
//!   jemalloc save one or two per cent.
//! - **Bodies of 4 KiB and more.** A Fetcher reuses up to 8 MiB of body buffers, because page
//!   faults took a quarter of the CPU time of a 10 KB response and of a 1 MB response. Use such a
//!   body as [`Bytes`](bytes::Bytes): converting it to a `Vec` copies it.
//! - **Build profile.** `lto = "thin"` and `codegen-units = 1` in the release profile let the
//!   compiler inline across hyper and tokio.

//! What a request costs, how that was measured, and what there is to tune.
//!
//! # What it costs
//!
//! About half of a request's CPU is two system calls, one to write and one to read; the rest is parsing, copying and
//! deciding. The table and the plot show CPU time a request (user and system together), on loopback against nginx.
//! "Kept" means that status, headers and body of every answer are kept until the end, "dropped" that each is dropped as it
//! comes; the same on both sides.
//!
#![doc = include_str!("performance/peers.md")]
//!
#![doc = include_str!("performance/peers.svg")]
//!
//! The bars are microseconds of CPU a request, for 100 bytes and 64 requests at once.
//!
//! # How it was measured
//!
//! `benches/peers/run` in the repository does all of it: it starts nginx on one core, runs every client on the other (the
//! default runtime gets both), in several rounds in which the clients take turns, and takes medians. All clients that are
//! Rust libraries are built into one program with the same settings, send the same headers, and count from before the
//! client is made to the last result. Limits, timeouts and retries are on, at their defaults. `benches/peers/RESULTS.md` has every case, with system
//! calls, memory and the clients in other languages. Machines differ, so trust the ratios and not the microseconds.
//!
//! # What there is to tune
//!
//! - **Runtime.** A job runs on the runtime that asked for it. The current-thread runtime has the lowest cost a request; the
//!   default one uses all cores, and costs more for it. In a program that does nothing else, spawn the batch: polled in
//!   `block_on` itself, it pays another wake-up for one request in three.
//! - **Concurrency.** To go from 1 to 64 at once makes a request cheaper, since one look at the system's event queue serves
//!   many sockets. Beyond what the server and the way to it can use, more at once is only more memory.
//!   [`Concurrency::adaptive`](crate::Concurrency::adaptive) finds the number for each host.
//! - **HTTP/2.** Over one connection the system calls of many requests are shared, which pays where answers are small and the
//!   server speaks it well. Large bodies are cheaper over HTTP/1.1, which has no frames and no second flow control.
//! - **What is kept.** [`gather`](crate::Fetcher::gather) keeps every response; [`as_completed`](crate::Fetcher::as_completed)
//!   keeps none that you do not keep. A kept response is its body, its packed headers and some 200 bytes. Headers that are
//!   looked at are unpacked, and stay so.
//! - **Allocator.** A request makes about fifteen allocations, most of them small and soon freed. On the default runtime a
//!   result is mostly freed by another thread than made it, and the locks of glibc's allocator then take about a tenth of
//!   the CPU; mimalloc or jemalloc as the `#[global_allocator]` of your program give that back. On one thread they are worth
//!   one or two percent.
//! - **Bodies from 4 KiB on.** A Fetcher keeps up to 8 MiB of the memory of those that are gone, for those to come, since
//!   page faults were a quarter of the CPU of an answer of 10 KB, and of one of a megabyte. Such a body is best used as the
//!   [`Bytes`](bytes::Bytes) it is: to make a `Vec` of it copies it.
//! - **Build.** `lto = "thin"` and `codegen-units = 1` in the release profile let the compiler see through hyper and tokio.

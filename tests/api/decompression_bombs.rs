//! Small bodies that decode to 10 GiB are rejected within bounded memory and yield to other tasks.
#![cfg(all(
    feature = "gzip",
    feature = "deflate",
    feature = "brotli",
    feature = "zstd"
))]
#![allow(unsafe_code)] // for the counting allocator

use crate::support::own_process::{self, test_path};
use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use crate::support::encoding_server::{EncodedResponse, Framing, encode, serve};
use fanout::{ErrorKind, Fetcher, Request};

const MIB: usize = 1 << 20;
const DEFAULT_MAX_BODY_SIZE: usize = 32 * MIB;
const BOMB_MIB: usize = 10 << 10;

static ALLOCATED_BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK_BYTES: AtomicUsize = AtomicUsize::new(0);

struct CountingAllocator;

// SAFETY: every call is forwarded to the system allocator. The counters do not affect it.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        record_allocation(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        record_allocation(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        ALLOCATED_BYTES.fetch_sub(layout.size(), SeqCst);
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if size > layout.size() {
            record_allocation(size - layout.size());
        } else {
            ALLOCATED_BYTES.fetch_sub(layout.size() - size, SeqCst);
        }
        unsafe { System.realloc(memory, layout, size) }
    }
}

fn record_allocation(size: usize) {
    PEAK_BYTES.fetch_max(ALLOCATED_BYTES.fetch_add(size, SeqCst) + size, SeqCst);
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Returns a body that decodes to `mib` MiB of zeros, without encoding all of them.
fn zeros(coding: &str, mib: usize) -> Vec<u8> {
    match coding {
        "gzip" => {
            let mut crc = flate2::Crc::new();
            let mut of_a_mib = flate2::Crc::new();
            of_a_mib.update(&vec![0; MIB]);
            (0..mib).for_each(|_| crc.combine(&of_a_mib));
            let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
            let length = (mib * MIB) as u32;
            let (sum, length) = (crc.sum().to_le_bytes(), length.to_le_bytes());
            [&head[..], &deflated_zeros(mib), &sum, &length].concat()
        }
        "deflate" => deflated_zeros(mib),
        "br" => brotli_zeros(22, mib),
        "zstd" => zstd_zeros(mib),
        other => panic!("no zeros in {other}"),
    }
}

/// Each block is independent, so it can be repeated.
fn deflated_zeros(mib: usize) -> Vec<u8> {
    let mut encoder = flate2::Compress::new(flate2::Compression::best(), false);
    let mut block = Vec::with_capacity(MIB);
    let flush = flate2::FlushCompress::Full;
    encoder
        .compress_vec(&vec![0; MIB], &mut block, flush)
        .unwrap();
    let mut coded = block.repeat(mib);
    coded.extend_from_slice(&[0x03, 0x00]);
    coded
}

fn brotli_zeros(window_bits: u32, mib: usize) -> Vec<u8> {
    let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, window_bits);
    let mut ends = [0; 3];
    for end in &mut ends {
        encoder.write_all(&vec![0; MIB]).unwrap();
        encoder.flush().unwrap();
        *end = encoder.get_ref().len();
    }
    let coded = encoder.get_ref();
    let block = &coded[ends[1]..ends[2]];
    assert_eq!(
        &coded[ends[0]..ends[1]],
        block,
        "what comes next is always the same"
    );
    let mut whole = coded[..ends[0]].to_vec();
    whole.extend(block.repeat(mib - 1));
    whole.push(0x03);
    whole
}

/// RLE blocks in a window of 8 MiB.
fn zstd_zeros(mib: usize) -> Vec<u8> {
    const BLOCK: u32 = 128 << 10;
    let block = |is_last: u32| (BLOCK << 3 | 0b010 | is_last).to_le_bytes();
    let mut coded = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 13 << 3];
    let blocks = mib * MIB / BLOCK as usize;
    for number in 1..=blocks {
        // A header of three bytes, and the byte to repeat.
        coded.extend_from_slice(&block(u32::from(number == blocks))[..3]);
        coded.push(0);
    }
    coded
}

struct Bomb {
    codings: String,
    body: Arc<[u8]>,
}

/// Returns bombs of each coding in 1 to 5 layers, and of mixed codings.
fn bombs() -> Vec<Bomb> {
    let mut bombs = Vec::new();
    let innermost = ["gzip", "deflate", "br", "zstd"];
    for first in innermost {
        let mut body = zeros(first, BOMB_MIB);
        let mut same = first.to_owned();
        bombs.push(Bomb {
            codings: same.clone(),
            body: body.clone().into(),
        });
        for _ in 2..=5 {
            body = encode(first, &body);
            same = format!("{same}, {first}");
            bombs.push(Bomb {
                codings: same.clone(),
                body: body.clone().into(),
            });
        }
    }
    let mut body = zeros("gzip", BOMB_MIB);
    for coding in ["br", "zstd", "deflate", "gzip"] {
        body = encode(coding, &body);
    }
    let codings = "gzip, br, zstd, deflate, gzip".to_owned();
    bombs.push(Bomb {
        codings,
        body: body.into(),
    });
    let mut body = brotli_zeros(24, BOMB_MIB);
    bombs.push(Bomb {
        codings: "br".to_owned(),
        body: body.clone().into(),
    });
    body = encode("zstd", &body);
    bombs.push(Bomb {
        codings: "br, zstd".to_owned(),
        body: body.into(),
    });
    bombs
}

#[test]
fn generated_bombs_decode_to_zeros() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let bodies = ["gzip", "deflate", "br", "zstd"].map(|coding| (coding, zeros(coding, 5)));
    let wide = ("br", brotli_zeros(24, 5));
    for (coding, body) in bodies.into_iter().chain([wide]) {
        let address = serve({
            let answer = EncodedResponse::coded(coding, body, Framing::Length);
            move |_| answer.clone()
        });
        let response = runtime
            .block_on(Fetcher::new().fetch(format!("http://{address}/")))
            .unwrap();
        assert!(response.bytes().len() == 5 * MIB && response.bytes().iter().all(|b| *b == 0));
    }
}

#[test]
fn bombs_are_rejected_within_bounded_memory() {
    if !own_process::is_child() {
        return own_process::run(test_path!(bombs_are_rejected_within_bounded_memory));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let bomb = Arc::new(Mutex::new(EncodedResponse::coded(
        "",
        *b"",
        Framing::Length,
    )));
    let address = serve({
        let bomb = Arc::clone(&bomb);
        move |head| {
            let mut answer = bomb.lock().unwrap().clone();
            let status = head[5..8].parse().unwrap();
            answer.status = status;
            if status == 302 {
                answer.headers.push(("location", "/204".to_owned()));
            }
            answer
        }
    });
    for (number, Bomb { codings, body }) in bombs().into_iter().enumerate() {
        let framing = [Framing::Length, Framing::Chunks(10_000)][number % 2];
        *bomb.lock().unwrap() = EncodedResponse::coded(&codings, body, framing);
        let small = Fetcher::builder()
            .max_body_size(MIB as u64)
            .build()
            .unwrap();
        for (cap, fetcher) in [(MIB, small), (DEFAULT_MAX_BODY_SIZE, Fetcher::new())] {
            for (status, redirects) in [(200, 10), (500, 10), (302, 0), (302, 10)] {
                let request = Request::get(format!("http://{address}/{status}"));
                let before = ALLOCATED_BYTES.load(SeqCst);
                PEAK_BYTES.store(before, SeqCst);
                let fetch = fetcher.fetch(request.max_redirects(redirects));
                let result = runtime.block_on(fetch);
                let peak = PEAK_BYTES.load(SeqCst) - before;
                let what = format!("{codings}, cap {cap}, status {status}: {peak}");
                match result {
                    Ok(response) => {
                        assert!((status, redirects) == (302, 10) && response.status() == 204);
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::BodyTooLarge, "{what}"),
                }
                assert!(peak <= cap + 8 * MIB, "{what}");
            }
        }
    }
}

#[test]
fn decoding_yields_to_other_tasks() {
    let bomb = encode("gzip", &zeros("gzip", 200));
    let answer = move || {
        let bomb = bomb.clone();
        async move { ([("content-encoding", "gzip, gzip")], bomb) }
    };
    let app = axum::Router::new().route("/", axum::routing::get(answer));
    let fetcher = Fetcher::builder().transport(app).build().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let turns = runtime.block_on(async {
        let is_done = Arc::clone(&done);
        let other = tokio::spawn(async move {
            let mut turns = 0;
            while !is_done.load(SeqCst) {
                turns += 1;
                tokio::task::yield_now().await;
            }
            turns
        });
        let error = fetcher.fetch("http://any.example/").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BodyTooLarge);
        done.store(true, SeqCst);
        other.await.unwrap()
    });
    // 32 MiB are at least 2,048 steps of 16 KiB, and the cooperative budget of a task is 128.
    assert!(turns >= 15, "{turns}");
}

//! Body streams, a temporary directory, and helpers for hand-written HTTP/1.1 servers.
#![allow(dead_code, unreachable_pub, missing_docs)]

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep};

/// Yields one chunk per poll, then finishes as its [`StreamEnd`] says.
pub struct ChunkStream {
    chunks: VecDeque<&'static str>,
    end: StreamEnd,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    End,
    Fail,
    Panic,
    /// Stays pending forever.
    Pending,
}

pub fn chunk_stream(chunks: &[&'static str], end: StreamEnd) -> ChunkStream {
    ChunkStream {
        chunks: chunks.iter().copied().collect(),
        end,
    }
}

impl Stream for ChunkStream {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match (self.chunks.pop_front(), self.end) {
            (Some(chunk), _) => Poll::Ready(Some(Ok(Bytes::from_static(chunk.as_bytes())))),
            (None, StreamEnd::End) => Poll::Ready(None),
            (None, StreamEnd::Fail) => {
                Poll::Ready(Some(Err(std::io::Error::other("the stream failed"))))
            }
            (None, StreamEnd::Panic) => panic!("the stream panicked"),
            (None, StreamEnd::Pending) => Poll::Pending,
        }
    }
}

/// The size of the chunks of a [`ChunkCounter`].
pub const CHUNK_SIZE: usize = 1 << 16;

/// Makes chunks, and counts those that exist. Clones share the counts.
#[derive(Clone, Default)]
pub struct ChunkCounter(Arc<ChunkCounts>);

#[derive(Default)]
struct ChunkCounts {
    made: AtomicUsize,
    alive: AtomicUsize,
    max_alive: AtomicUsize,
}

struct CountedChunk(ChunkCounter);

impl ChunkCounter {
    pub fn make_chunk(&self) -> Bytes {
        let Self(counts) = self;
        counts.made.fetch_add(1, SeqCst);
        let alive = counts.alive.fetch_add(1, SeqCst) + 1;
        counts.max_alive.fetch_max(alive, SeqCst);
        Bytes::from_owner(CountedChunk(self.clone()))
    }

    pub fn made(&self) -> usize {
        self.0.made.load(SeqCst)
    }

    pub fn alive(&self) -> usize {
        self.0.alive.load(SeqCst)
    }

    pub fn max_alive(&self) -> usize {
        self.0.max_alive.load(SeqCst)
    }
}

impl AsRef<[u8]> for CountedChunk {
    fn as_ref(&self) -> &[u8] {
        &[0; CHUNK_SIZE]
    }
}

impl Drop for CountedChunk {
    fn drop(&mut self) {
        let Self(ChunkCounter(counts)) = self;
        counts.alive.fetch_sub(1, SeqCst);
    }
}

/// Binds a listener on 127.0.0.1 and returns it with its URL.
pub async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    (listener, url)
}

/// Reads up to the empty line that ends a head.
pub async fn read_head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if socket.read(&mut byte).await.unwrap() == 0 {
            break;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

pub async fn write(socket: &mut TcpStream, bytes: impl AsRef<[u8]>) {
    socket.write_all(bytes.as_ref()).await.unwrap();
}

/// A new temporary directory, removed on drop.
pub struct TempDir(std::path::PathBuf);

impl TempDir {
    pub fn new() -> Self {
        let name = format!("fanout-test-{}-{:x}", std::process::id(), fastrand::u64(..));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.join(name)
    }

    /// The sorted names of the files and directories in this directory.
    pub fn entry_names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Yields a number of chunks at a fixed interval.
pub struct IntervalStream<F> {
    interval: Duration,
    remaining: usize,
    make_chunk: F,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<F: FnMut() -> Bytes> IntervalStream<F> {
    pub fn new(interval: Duration, count: usize, make_chunk: F) -> Self {
        Self {
            interval,
            remaining: count,
            make_chunk,
            timer: None,
        }
    }
}

impl<F: FnMut() -> Bytes + Unpin> Stream for IntervalStream<F> {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.remaining == 0 {
            return Poll::Ready(None);
        }
        if !self.interval.is_zero() {
            let interval = self.interval;
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(interval)));
            ready!(timer.as_mut().poll(cx));
            self.timer = None;
        }
        self.remaining -= 1;
        Poll::Ready(Some(Ok((self.make_chunk)())))
    }
}

/// Yields `count` single bytes, one every `interval`.
pub fn interval_bytes(interval: Duration, count: usize) -> IntervalStream<fn() -> Bytes> {
    IntervalStream::new(interval, count, || Bytes::from_static(b"."))
}

/// Waits until another task, thread or process has made the condition true.
pub async fn wait_until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

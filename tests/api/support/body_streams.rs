//! Streams for the tests of bodies, and a server that is written out by hand.
#![allow(dead_code, unreachable_pub, missing_docs)] // each test binary uses a part

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep};

/// Gives its parts, one a poll, and then ends or fails.
pub struct ChunkStream {
    parts: VecDeque<&'static str>,
    then: StreamEnd,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    End,
    Fail,
    Panic,
    /// Never gives anything more.
    Wait,
}

pub fn chunk_stream(parts: &[&'static str], then: StreamEnd) -> ChunkStream {
    ChunkStream {
        parts: parts.iter().copied().collect(),
        then,
    }
}

impl Stream for ChunkStream {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match (self.parts.pop_front(), self.then) {
            (Some(part), _) => Poll::Ready(Some(Ok(Bytes::from_static(part.as_bytes())))),
            (None, StreamEnd::End) => Poll::Ready(None),
            (None, StreamEnd::Fail) => {
                Poll::Ready(Some(Err(std::io::Error::other("the source ran dry"))))
            }
            (None, StreamEnd::Panic) => panic!("the source panicked"),
            (None, StreamEnd::Wait) => Poll::Pending,
        }
    }
}

/// A listener on loopback, and the URL that leads to it.
pub async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    (listener, url)
}

/// Reads to the end of the head.
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

/// A directory of its own that goes with the test.
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

    /// The names of all that is in it.
    pub fn names(&self) -> Vec<String> {
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

/// So many pieces, one every so often.
pub struct IntervalStream<F> {
    every: Duration,
    left: usize,
    make: F,
    next: Option<Pin<Box<Sleep>>>,
}

impl<F: FnMut() -> Bytes> IntervalStream<F> {
    pub fn new(every: Duration, count: usize, make: F) -> Self {
        Self {
            every,
            left: count,
            make,
            next: None,
        }
    }
}

impl<F: FnMut() -> Bytes + Unpin> Stream for IntervalStream<F> {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        if !self.every.is_zero() {
            let every = self.every;
            let next = self.next.get_or_insert_with(|| Box::pin(sleep(every)));
            ready!(next.as_mut().poll(cx));
            self.next = None;
        }
        self.left -= 1;
        Poll::Ready(Some(Ok((self.make)())))
    }
}

/// A byte every so often.
pub fn interval_bytes(every: Duration, count: usize) -> IntervalStream<fn() -> Bytes> {
    IntervalStream::new(every, count, || Bytes::from_static(b"."))
}

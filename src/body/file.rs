//! A file as a body, read on the runtime's threads for what blocks.

use std::fs::File;
use std::future::Future;
use std::io::{self, Read};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use tokio::task::{JoinHandle, spawn_blocking};

use super::BoxError;
use super::source::Chunks;

/// So much is read at once: enough that going to another thread for it costs little.
const CHUNK: u64 = 128 << 10;

/// Opens a file, and tells its length.
pub(super) async fn open(path: Arc<Path>) -> io::Result<(Chunks, u64)> {
    let (file, length) = spawn_blocking(move || open_now(&path)).await??;
    let reading = Reading::At(file, length);
    Ok((Box::pin(FileChunks(reading)), length))
}

/// A file that is opened when it is first asked for anything.
pub(super) fn unopened(path: Arc<Path>) -> Chunks {
    Box::pin(FileChunks(Reading::Unopened(path)))
}

fn open_now(path: &Path) -> io::Result<(File, u64)> {
    let file = File::open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok((file, about.len()))
}

struct FileChunks(Reading);

enum Reading {
    Unopened(Arc<Path>),
    /// Before so many bytes, which are all that is sent, whatever becomes of the file.
    At(File, u64),
    Busy(JoinHandle<io::Result<(File, u64, Bytes)>>),
    End,
}

impl Stream for FileChunks {
    type Item = Result<Bytes, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match std::mem::replace(&mut self.0, Reading::End) {
                Reading::Unopened(path) => {
                    self.0 = Reading::Busy(spawn_blocking(move || {
                        let (file, left) = open_now(&path)?;
                        read(file, left)
                    }));
                }
                Reading::At(_, 0) | Reading::End => return Poll::Ready(None),
                Reading::At(file, left) => {
                    self.0 = Reading::Busy(spawn_blocking(move || read(file, left)));
                }
                Reading::Busy(mut task) => {
                    let Poll::Ready(done) = Pin::new(&mut task).poll(cx) else {
                        self.0 = Reading::Busy(task);
                        return Poll::Pending;
                    };
                    let (file, left, chunk) = match done {
                        Ok(Ok(read)) => read,
                        Ok(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                        Err(error) => return Poll::Ready(Some(Err(error.into()))),
                    };
                    self.0 = Reading::At(file, left);
                    if !chunk.is_empty() {
                        return Poll::Ready(Some(Ok(chunk)));
                    }
                }
            }
        }
    }
}

fn read(file: File, left: u64) -> io::Result<(File, u64, Bytes)> {
    let length = left.min(CHUNK);
    let mut chunk = Vec::with_capacity(length as usize);
    let read = (&file).take(length).read_to_end(&mut chunk)? as u64;
    if read < length {
        let reason = "it became shorter while it was sent";
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
    }
    Ok((file, left - length, chunk.into()))
}

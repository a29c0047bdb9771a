//! Reads a file as a request body on the blocking threads of the runtime.

use std::fs::{self, File, Metadata};
use std::future::Future;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use tokio::task::{JoinHandle, spawn_blocking};

use super::source::ChunkStream;
use crate::descriptors::{OpenFilePermit, acquire_open_file_permit, run_file_operation};
use crate::error::BoxError;

/// The number of bytes per read, large enough to amortize the switch to a blocking thread.
const CHUNK_SIZE: u64 = 128 << 10;

/// A range of the bytes of a file. Only this range is sent.
#[derive(Copy, Clone)]
pub(super) struct FileRange {
    start: u64,
    /// The offset after the last byte of the range; `None` if the range extends to the end of the
    /// file.
    end: Option<u64>,
}

impl FileRange {
    /// # Panics
    ///
    /// Panics if the range ends before it starts.
    #[track_caller]
    pub(super) fn new(range: impl RangeBounds<u64>) -> Self {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => Some(last.saturating_add(1)),
            Bound::Excluded(end) => Some(*end),
            Bound::Unbounded => None,
        };
        assert!(
            end.is_none_or(|end| start <= end),
            "the file range ends before it starts"
        );
        Self { start, end }
    }

    /// The number of bytes of the range; `None` if the range extends to the end of the file.
    pub(super) fn length(self) -> Option<u64> {
        self.end.map(|end| end - self.start)
    }

    /// The number of bytes of the range within a file of `file_length` bytes.
    fn length_within(self, file_length: u64) -> io::Result<u64> {
        let Self { start, end } = self;
        let end = end.unwrap_or(file_length);
        if end > file_length || start > end {
            return Err(io::Error::other(format!(
                "the range {start}..{end} is not within the {file_length} bytes of the file"
            )));
        }
        Ok(end - start)
    }
}

/// Opens a file. Returns the chunks of its range, and the length of the range.
///
/// If the range fits into one chunk, the call reads the chunk and closes the file. Otherwise, the
/// call waits for a permit and keeps the file open.
pub(super) async fn open(path: Arc<Path>, range: FileRange) -> io::Result<(ChunkStream, u64)> {
    let short_range_path = Arc::clone(&path);
    let read_short_range = move || {
        let (file, length) = open_blocking(&short_range_path, range)?;
        if length > CHUNK_SIZE {
            return Ok(None);
        }
        read_chunk(file, length).map(|(_, _, chunk)| Some(chunk))
    };
    if let Some(chunk) = run_file_operation(read_short_range).await? {
        let length = chunk.len() as u64;
        return Ok((FileChunks::boxed(ReadState::Buffered(chunk), None), length));
    }
    let permit = acquire_open_file_permit().await;
    let (file, length) = run_file_operation(move || open_blocking(&path, range)).await?;
    let state = ReadState::Idle(file, length);
    Ok((FileChunks::boxed(state, Some(permit)), length))
}

/// Returns a stream that opens the file at its first poll.
pub(super) fn open_lazily(path: Arc<Path>, range: FileRange) -> ChunkStream {
    FileChunks::boxed(ReadState::Unopened(path, range), None)
}

/// Opens a regular file at the start of a range. Returns the file and the length of the range.
///
/// A path that is not a regular file is refused before it is opened: opening a FIFO blocks, and
/// opening a device can have side effects. The opened file is checked again, because the path can
/// be replaced after the first check.
fn open_blocking(path: &Path, range: FileRange) -> io::Result<(File, u64)> {
    require_regular_file(&fs::metadata(path)?)?;
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    require_regular_file(&metadata)?;
    let length = range.length_within(metadata.len())?;
    file.seek(SeekFrom::Start(range.start))?;
    Ok((file, length))
}

fn require_regular_file(metadata: &Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let reason = if metadata.is_dir() {
        "it is a directory"
    } else {
        "it is not a regular file; use `Body::stream` for a pipe or a device"
    };
    Err(io::Error::other(reason))
}

struct FileChunks {
    state: ReadState,
    _permit: Option<OpenFilePermit>,
}

impl FileChunks {
    fn boxed(state: ReadState, permit: Option<OpenFilePermit>) -> ChunkStream {
        Box::pin(Self {
            state,
            _permit: permit,
        })
    }
}

enum ReadState {
    Unopened(Arc<Path>, FileRange),
    /// The chunk is the whole range. The file is closed.
    Buffered(Bytes),
    /// The open file, and the number of bytes of the range that are not read yet. Bytes that are
    /// appended to the file after it was opened are not sent.
    Idle(File, u64),
    Reading(JoinHandle<io::Result<(File, u64, Bytes)>>),
    Done,
}

impl Stream for FileChunks {
    type Item = Result<Bytes, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match std::mem::replace(&mut self.state, ReadState::Done) {
                ReadState::Unopened(path, range) => {
                    self.state = ReadState::Reading(spawn_blocking(move || {
                        let (file, remaining) = open_blocking(&path, range)?;
                        read_chunk(file, remaining)
                    }));
                }
                ReadState::Buffered(chunk) if !chunk.is_empty() => {
                    return Poll::Ready(Some(Ok(chunk)));
                }
                ReadState::Buffered(_) | ReadState::Idle(_, 0) | ReadState::Done => {
                    return Poll::Ready(None);
                }
                ReadState::Idle(file, remaining) => {
                    self.state =
                        ReadState::Reading(spawn_blocking(move || read_chunk(file, remaining)));
                }
                ReadState::Reading(mut task) => {
                    let Poll::Ready(done) = Pin::new(&mut task).poll(cx) else {
                        self.state = ReadState::Reading(task);
                        return Poll::Pending;
                    };
                    let (file, remaining, chunk) = match done {
                        Ok(Ok(read)) => read,
                        Ok(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                        Err(error) => return Poll::Ready(Some(Err(error.into()))),
                    };
                    self.state = ReadState::Idle(file, remaining);
                    if !chunk.is_empty() {
                        return Poll::Ready(Some(Ok(chunk)));
                    }
                }
            }
        }
    }
}

fn read_chunk(file: File, remaining: u64) -> io::Result<(File, u64, Bytes)> {
    let length = remaining.min(CHUNK_SIZE);
    let mut chunk = Vec::with_capacity(length as usize);
    let read = (&file).take(length).read_to_end(&mut chunk)? as u64;
    if read < length {
        let reason = "the file became shorter while it was sent";
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
    }
    Ok((file, remaining - length, chunk.into()))
}

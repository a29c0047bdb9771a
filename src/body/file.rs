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
const MAX_CHUNK_BYTES: u64 = 128 << 10;

/// A range of the bytes of a file. Only this range is sent.
#[derive(Copy, Clone)]
pub(super) struct FileRange {
    start_offset: u64,
    /// The offset after the last byte of the range; `None` if the range extends to the end of the
    /// file.
    end_offset: Option<u64>,
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
        Self {
            start_offset: start,
            end_offset: end,
        }
    }

    /// The number of bytes of the range; `None` if the range extends to the end of the file.
    pub(super) fn length_if_bounded(self) -> Option<u64> {
        self.end_offset.map(|end| end - self.start_offset)
    }

    /// The number of bytes of the range within a file of `file_length` bytes.
    fn range_length_in_file(self, file_length: u64) -> io::Result<u64> {
        let Self {
            start_offset: start,
            end_offset: end,
        } = self;
        let end = end.unwrap_or(file_length);
        if end > file_length || start > end {
            return Err(io::Error::other(format!(
                "the range {start}..{end} is not within the {file_length} bytes of the file"
            )));
        }
        Ok(end - start)
    }
}

/// Opens a file. Returns a stream of the chunks of the range, and the length of the range.
///
/// If the range fits into one chunk, the call reads the chunk and closes the file. Otherwise, the
/// call waits for a permit and keeps the file open.
pub(super) async fn open_chunk_stream(
    path: Arc<Path>,
    range: FileRange,
) -> io::Result<(ChunkStream, u64)> {
    let short_range_path = Arc::clone(&path);
    let read_short_range = move || {
        let (file, length) = open_regular_file_at_range_start(&short_range_path, range)?;
        if length > MAX_CHUNK_BYTES {
            return Ok(None);
        }
        read_next_chunk(file, length).map(|(_, _, chunk)| Some(chunk))
    };
    if let Some(chunk) = run_file_operation(read_short_range).await? {
        let length = chunk.len() as u64;
        return Ok((
            FileChunkStream::boxed_chunk_stream(FileReadState::WholeRangeRead(chunk), None),
            length,
        ));
    }
    let permit = acquire_open_file_permit().await;
    let (file, length) =
        run_file_operation(move || open_regular_file_at_range_start(&path, range)).await?;
    let state = FileReadState::BetweenReads(file, length);
    Ok((
        FileChunkStream::boxed_chunk_stream(state, Some(permit)),
        length,
    ))
}

/// Returns a stream that opens the file at its first poll.
pub(super) fn stream_opened_on_first_poll(path: Arc<Path>, range: FileRange) -> ChunkStream {
    FileChunkStream::boxed_chunk_stream(FileReadState::NotOpened(path, range), None)
}

/// Opens a regular file at the start of a range. Returns the file and the length of the range.
///
/// A path that is not a regular file is refused before it is opened: opening a FIFO blocks, and
/// opening a device can have side effects. The opened file is checked again, because the path can
/// be replaced after the first check.
fn open_regular_file_at_range_start(path: &Path, range: FileRange) -> io::Result<(File, u64)> {
    require_regular_file(&fs::metadata(path)?)?;
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    require_regular_file(&metadata)?;
    let length = range.range_length_in_file(metadata.len())?;
    file.seek(SeekFrom::Start(range.start_offset))?;
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

struct FileChunkStream {
    read_state: FileReadState,
    _open_file_permit: Option<OpenFilePermit>,
}

impl FileChunkStream {
    fn boxed_chunk_stream(
        read_state: FileReadState,
        permit: Option<OpenFilePermit>,
    ) -> ChunkStream {
        Box::pin(Self {
            read_state,
            _open_file_permit: permit,
        })
    }
}

enum FileReadState {
    NotOpened(Arc<Path>, FileRange),
    /// The chunk is the whole range. The file is closed.
    WholeRangeRead(Bytes),
    /// The open file, and the number of bytes of the range that are not read yet. Bytes that are
    /// appended to the file after it was opened are not sent.
    BetweenReads(File, u64),
    ReadingChunk(JoinHandle<io::Result<(File, u64, Bytes)>>),
    Done,
}

impl Stream for FileChunkStream {
    type Item = Result<Bytes, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match std::mem::replace(&mut self.read_state, FileReadState::Done) {
                FileReadState::NotOpened(path, range) => {
                    self.read_state = FileReadState::ReadingChunk(spawn_blocking(move || {
                        let (file, remaining) = open_regular_file_at_range_start(&path, range)?;
                        read_next_chunk(file, remaining)
                    }));
                }
                FileReadState::WholeRangeRead(chunk) if !chunk.is_empty() => {
                    return Poll::Ready(Some(Ok(chunk)));
                }
                FileReadState::WholeRangeRead(_)
                | FileReadState::BetweenReads(_, 0)
                | FileReadState::Done => {
                    return Poll::Ready(None);
                }
                FileReadState::BetweenReads(file, remaining) => {
                    self.read_state = FileReadState::ReadingChunk(spawn_blocking(move || {
                        read_next_chunk(file, remaining)
                    }));
                }
                FileReadState::ReadingChunk(mut task) => {
                    let Poll::Ready(done) = Pin::new(&mut task).poll(cx) else {
                        self.read_state = FileReadState::ReadingChunk(task);
                        return Poll::Pending;
                    };
                    let (file, remaining, chunk) = match done {
                        Ok(Ok(read)) => read,
                        Ok(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                        Err(error) => return Poll::Ready(Some(Err(error.into()))),
                    };
                    self.read_state = FileReadState::BetweenReads(file, remaining);
                    if !chunk.is_empty() {
                        return Poll::Ready(Some(Ok(chunk)));
                    }
                }
            }
        }
    }
}

fn read_next_chunk(file: File, remaining: u64) -> io::Result<(File, u64, Bytes)> {
    let length = remaining.min(MAX_CHUNK_BYTES);
    let mut chunk = Vec::with_capacity(length as usize);
    let read = (&file).take(length).read_to_end(&mut chunk)? as u64;
    if read < length {
        let reason = "the file became shorter while it was sent";
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
    }
    Ok((file, remaining - length, chunk.into()))
}

//! A stream that counts the bytes it reads and writes.
//!
//! hyper returns the same error for a connection that closes before the first byte, within a
//! response head or after an informational response. The byte counts distinguish these cases. They
//! also tell whether the server may have received the request.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, ready};

use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connect::tls;
use super::informational::InformationalCounter;
use super::lenient_reader::LenientReader;

/// The maximum number of bytes per read while a head is read leniently.
const LENIENT_READ_BYTES: usize = 4096;

/// The byte counts and the flags of a connection.
///
/// The owner of the connection and the [`MeteredStream`] (owned by hyper or h2) share one
/// `IoCounts`. Only the task that polls the connection writes the counts, so adding to a count
/// needs no atomic read-modify-write operation.
#[derive(Default)]
pub(super) struct IoCounts {
    bytes_written: AtomicU64,
    bytes_read: AtomicU64,
    /// An [`InformationalCounter`], packed into an integer.
    packed_informational_counter: AtomicU64,
    /// Whether a write failed because the peer no longer reads.
    peer_closed_for_writes: AtomicBool,
    /// Whether the waker of the idle connection was called.
    woken_while_idle: AtomicBool,
    /// Whether a read returned `Pending` in the current poll of the connection.
    read_drained: AtomicBool,
    /// Whether a read failed with a TLS error.
    tls_read_failure: AtomicBool,
    /// Whether a write was accepted only in part, or not at once.
    write_stalled: AtomicBool,
    /// The response head fields that a [`LenientReader`] has parsed.
    lenient_headers: Mutex<Option<Box<HeaderMap>>>,
}

impl IoCounts {
    /// Resets the counts for a new exchange.
    pub(super) fn reset_for_exchange(&self) {
        self.bytes_written.store(0, Relaxed);
        self.bytes_read.store(0, Relaxed);
        self.packed_informational_counter.store(0, Relaxed);
    }

    /// The number of bytes that the stream has accepted for writing in the current exchange.
    pub(super) fn bytes_written(&self) -> u64 {
        self.bytes_written.load(Relaxed)
    }

    /// The number of bytes received in the current exchange.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Relaxed)
    }

    /// The number of informational responses (1xx) received in the current exchange.
    pub(super) fn informational_response_count(&self) -> u32 {
        InformationalCounter::from_packed(self.packed_informational_counter.load(Relaxed))
            .informational_count()
    }

    /// The number of bytes that precede the final response head in the current exchange, such as
    /// informational responses.
    pub(super) fn final_head_offset(&self) -> u64 {
        InformationalCounter::from_packed(self.packed_informational_counter.load(Relaxed))
            .final_head_offset()
    }

    /// Whether a write was accepted only in part, or not at once, since the connection was opened.
    pub(super) fn has_write_stalled(&self) -> bool {
        self.write_stalled.load(Relaxed)
    }

    /// Takes the response head fields that a [`LenientReader`] has parsed.
    pub(super) fn take_lenient_headers(&self) -> Option<HeaderMap> {
        self.lock_lenient_headers().take().map(|headers| *headers)
    }

    fn lock_lenient_headers(&self) -> MutexGuard<'_, Option<Box<HeaderMap>>> {
        let headers = self.lenient_headers.lock();
        headers.unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates the counts of an HTTP/2 connection. Its informational responses are not counted.
    #[cfg(feature = "http2")]
    pub(super) fn for_http2() -> Self {
        Self {
            packed_informational_counter: AtomicU64::new(
                InformationalCounter::DISABLED.to_packed(),
            ),
            ..Self::default()
        }
    }

    /// Counts the informational responses in received bytes. `offset` is the number of bytes
    /// received before them in the exchange.
    fn scan_for_informational_responses(&self, bytes: &[u8], offset: u64) {
        let mut counter =
            InformationalCounter::from_packed(self.packed_informational_counter.load(Relaxed));
        if counter.scan_bytes(bytes, offset) {
            self.packed_informational_counter
                .store(counter.to_packed(), Relaxed);
        }
    }

    /// Whether a write failed because the peer no longer reads.
    pub(super) fn has_peer_closed_for_writes(&self) -> bool {
        self.peer_closed_for_writes.load(Relaxed)
    }

    /// Whether a read failed with a TLS error, such as an alert.
    pub(super) fn has_tls_read_failure(&self) -> bool {
        self.tls_read_failure.load(Relaxed)
    }

    /// Clears the flag of [`is_read_drained`](Self::is_read_drained). Must be called before each
    /// poll of the connection.
    pub(super) fn clear_read_drained(&self) {
        self.read_drained.store(false, Relaxed);
    }

    /// Whether the last poll of the connection read all available bytes.
    pub(super) fn is_read_drained(&self) -> bool {
        self.read_drained.load(Relaxed)
    }

    /// Whether the waker of the idle connection was called after
    /// [`clear_woken_while_idle`](Self::clear_woken_while_idle).
    pub(super) fn was_woken_while_idle(&self) -> bool {
        self.woken_while_idle.load(Relaxed)
    }

    /// Clears the flag of [`was_woken_while_idle`](Self::was_woken_while_idle). The caller then
    /// polls the idle connection, which registers its waker again.
    pub(super) fn clear_woken_while_idle(&self) {
        self.woken_while_idle.store(false, Relaxed);
    }
}

/// The waker of an idle connection. It sets a flag, which the pool's sweep reads, and wakes no
/// task.
impl Wake for IoCounts {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken_while_idle.store(true, Relaxed);
    }
}

/// A stream that counts the bytes it reads and writes in [`IoCounts`].
pub(super) struct MeteredStream<S> {
    stream: S,
    io_counts: Arc<IoCounts>,
    /// Whether writes are split into TLS records.
    writes_tls_records: bool,
    skip_reads_after_pending: bool,
    /// Rewrites response heads for hyper. `None` until hyper has rejected a response head.
    lenient_reader: Option<Box<LenientReader>>,
}

impl<S> MeteredStream<S> {
    pub(super) fn new(stream: S, io_counts: Arc<IoCounts>) -> Self {
        Self {
            stream,
            io_counts,
            writes_tls_records: false,
            skip_reads_after_pending: false,
            lenient_reader: None,
        }
    }

    /// Reads response heads leniently from now on. The next write is discarded, because it is a
    /// placeholder request.
    ///
    /// `received` holds the bytes that hyper has read, from the first byte of the rejected head on.
    pub(super) fn start_lenient_reads(&mut self, received: &[u8]) {
        self.lenient_reader = Some(Box::new(LenientReader::new(received)));
    }

    /// After a read has returned `Pending`, skips all reads until the next poll of the connection.
    ///
    /// hyper reads several times in one poll. After the first `Pending` the waker is registered, so
    /// further reads in the same poll are useless. The caller must call
    /// [`IoCounts::clear_read_drained`] before each poll.
    pub(super) fn with_reads_skipped_after_pending(self) -> Self {
        Self {
            skip_reads_after_pending: true,
            ..self
        }
    }

    /// Sets whether writes are split into TLS records.
    ///
    /// With TLS records, a failed write counts as written, because some of its records may have
    /// been sent.
    pub(super) fn with_tls_record_writes(self, writes_tls_records: bool) -> Self {
        Self {
            writes_tls_records,
            ..self
        }
    }

    /// Counts a write of `len` bytes. Returns the result to report to hyper.
    ///
    /// A server may respond and close the connection while the request is still being sent. After a
    /// failed write, hyper would discard the response. Therefore a write that fails because the
    /// peer no longer reads is reported as complete. The next reads decide the outcome.
    fn record_write(&self, result: io::Result<usize>, len: usize) -> io::Result<usize> {
        let written = match result {
            Ok(n) => n,
            Err(_) if self.writes_tls_records => len,
            Err(_) => 0,
        };
        if written < len {
            self.io_counts.write_stalled.store(true, Relaxed);
        }
        let total = &self.io_counts.bytes_written;
        total.store(total.load(Relaxed) + written as u64, Relaxed);
        match result {
            Ok(n) => Ok(n),
            Err(error) if is_peer_closed_error(&error) => {
                self.io_counts.peer_closed_for_writes.store(true, Relaxed);
                Ok(len)
            }
            Err(error) => Err(error),
        }
    }
}

fn is_peer_closed_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
    )
}

impl<S: AsyncRead + Unpin> MeteredStream<S> {
    // Inlined into `poll_read`, which every response calls several times.
    #[inline(always)]
    fn poll_read_and_count(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.skip_reads_after_pending && self.io_counts.is_read_drained() {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let Poll::Ready(result) = Pin::new(&mut self.stream).poll_read(cx, buffer) else {
            self.io_counts.read_drained.store(true, Relaxed);
            return Poll::Pending;
        };
        let read = &self.io_counts.bytes_read;
        let offset = read.load(Relaxed);
        self.io_counts
            .scan_for_informational_responses(&buffer.filled()[before..], offset);
        let n = buffer.filled().len() - before;
        read.store(offset + n as u64, Relaxed);
        if result.as_ref().is_err_and(tls::is_tls_error) {
            self.io_counts.tls_read_failure.store(true, Relaxed);
        }
        Poll::Ready(result)
    }

    #[cold]
    #[inline(never)]
    fn poll_read_head_leniently(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut chunk = [0; LENIENT_READ_BYTES];
        let mut received = 0;
        loop {
            let Some(reader) = &mut self.lenient_reader else {
                return self.poll_read_and_count(cx, buffer);
            };
            if reader.blocks_reads() {
                return Poll::Pending;
            }
            if reader.is_reading_head()
                && let Some(headers) = reader.receive_head_bytes(&chunk[..received])?
            {
                *self.io_counts.lock_lenient_headers() = Some(Box::new(headers));
            }
            if reader.read_rewritten(buffer) {
                return Poll::Ready(Ok(()));
            }
            if !reader.is_reading_head() {
                return self.poll_read_and_count(cx, buffer);
            }
            let mut chunk_buffer = ReadBuf::new(&mut chunk);
            ready!(self.poll_read_and_count(cx, &mut chunk_buffer))?;
            received = chunk_buffer.filled().len();
            if received == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MeteredStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.lenient_reader.is_some() {
            return self.poll_read_head_leniently(cx, buffer);
        }
        self.poll_read_and_count(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> MeteredStream<S> {
    /// Called before a write. Returns true if the write must be skipped and reported as complete.
    #[inline(always)]
    fn begin_write_or_discard(&mut self) -> bool {
        if let Some(reader) = &mut self.lenient_reader
            && reader.advance_stage_before_write(self.io_counts.bytes_written() == 0)
        {
            return true;
        }
        self.io_counts.has_peer_closed_for_writes()
    }

    /// Records a stall if the write is pending.
    fn record_write_stall<T>(&self, write: Poll<T>) -> Poll<T> {
        if write.is_pending() {
            self.io_counts.write_stalled.store(true, Relaxed);
        }
        write
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MeteredStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.begin_write_or_discard() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let write = Pin::new(&mut self.stream).poll_write(cx, bytes);
        let result = ready!(self.record_write_stall(write));
        Poll::Ready(self.record_write(result, bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // write(2) is cheaper than writev(2) for a single slice.
        if let [slice] = slices {
            return self.poll_write(cx, slice);
        }
        let len = slices.iter().map(|slice| slice.len()).sum();
        if self.begin_write_or_discard() {
            return Poll::Ready(Ok(len));
        }
        let write = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        let result = ready!(self.record_write_stall(write));
        Poll::Ready(self.record_write(result, len))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.io_counts.has_peer_closed_for_writes() {
            return Poll::Ready(Ok(()));
        }
        let result = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        Poll::Ready(self.record_write(result.map(|()| 0), 0).map(|_| ()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn reset_starts_the_counts_at_zero() {
        let (near, mut far) = tokio::io::duplex(64);
        let io_counts = Arc::new(IoCounts::default());
        let mut metered = MeteredStream::new(near, Arc::clone(&io_counts));
        metered.write_all(b"before").await.unwrap();
        io_counts.reset_for_exchange();
        metered.write_all(b"request").await.unwrap();
        far.write_all(b"response").await.unwrap();
        metered.read_exact(&mut [0; 4]).await.unwrap();
        assert_eq!((io_counts.bytes_written(), io_counts.bytes_read()), (7, 4));
    }

    #[tokio::test]
    async fn response_is_readable_after_the_peer_stops_reading() {
        let (near, mut far) = tokio::io::duplex(64);
        far.write_all(b"response").await.unwrap();
        drop(far);
        let io_counts = Arc::new(IoCounts::default());
        let mut metered = MeteredStream::new(near, Arc::clone(&io_counts));
        metered.write_all(b"request").await.unwrap();
        metered.flush().await.unwrap();
        assert!(io_counts.has_peer_closed_for_writes());
        assert_eq!(io_counts.bytes_written(), 0);
        let mut response = String::new();
        metered.read_to_string(&mut response).await.unwrap();
        assert_eq!(response, "response");
    }

    /// A stream that fails every write with an error of this kind.
    struct FailingWrites(io::ErrorKind);

    impl AsyncWrite for FailingWrites {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(self.0.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(self.0.into()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncRead for FailingWrites {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn failed_write_of_tls_records_counts_as_written() {
        for kind in [io::ErrorKind::BrokenPipe, io::ErrorKind::Other] {
            for (writes_tls_records, written) in [(false, 0), (true, 7)] {
                let io_counts = Arc::new(IoCounts::default());
                let metered = MeteredStream::new(FailingWrites(kind), Arc::clone(&io_counts));
                let mut metered = metered.with_tls_record_writes(writes_tls_records);
                let result = metered.write_all(b"request").await;
                assert_eq!(result.is_ok(), kind == io::ErrorKind::BrokenPipe);
                assert_eq!(io_counts.bytes_written(), written, "{kind:?}");
            }
        }
    }
}

//! The metered on a connection's stream: how much of this exchange each side can have seen.
//!
//! hyper reports a connection that closed before one byte, in the midst of a head, and after an
//! informational response all alike. These io_counts tell them apart, and so decide whether a request may
//! have reached the server.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connect::tls;
use super::informational::InformationalCounter;

/// Shared by the metered, which is inside hyper's connection, and the connection's owner.
///
/// Only the task that polls the connection writes the byte io_counts, so a load and a store do for
/// an addition.
#[derive(Default)]
pub(super) struct IoCounts {
    written: AtomicU64,
    read: AtomicU64,
    /// An [`InformationalCounter`], packed.
    informational: AtomicU32,
    write_closed: AtomicBool,
    woken: AtomicBool,
    /// In this poll of the connection there was nothing more to read.
    read_drained: AtomicBool,
    tls_failure: AtomicBool,
}

impl IoCounts {
    /// Starts a new exchange at zero.
    pub(super) fn reset(&self) {
        self.written.store(0, Relaxed);
        self.read.store(0, Relaxed);
        self.informational.store(0, Relaxed);
    }

    /// Bytes of the exchange that the transport has accepted.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// Bytes received in the exchange.
    pub(super) fn read(&self) -> u64 {
        self.read.load(Relaxed)
    }

    /// Informational answers (1xx) received in the exchange.
    pub(super) fn informational(&self) -> u32 {
        InformationalCounter::from_packed(self.informational.load(Relaxed)).count()
    }

    /// Without counting informational answers: what is read is not HTTP/1.
    #[cfg(feature = "http2")]
    pub(super) fn for_http2() -> Self {
        Self {
            informational: AtomicU32::new(InformationalCounter::DISABLED.to_packed()),
            ..Self::default()
        }
    }

    fn scan_informational(&self, bytes: &[u8]) {
        let mut informational = InformationalCounter::from_packed(self.informational.load(Relaxed));
        if informational.scan(bytes) {
            self.informational.store(informational.to_packed(), Relaxed);
        }
    }

    /// Whether the peer refuses to read on.
    pub(super) fn is_write_closed(&self) -> bool {
        self.write_closed.load(Relaxed)
    }

    /// Whether reading ended with an error of TLS, such as an alert.
    pub(super) fn is_tls_failure(&self) -> bool {
        self.tls_failure.load(Relaxed)
    }

    /// Called before the connection is polled.
    pub(super) fn begin_poll(&self) {
        self.read_drained.store(false, Relaxed);
    }

    /// Whether all has been read that there was at the last poll.
    pub(super) fn is_read_drained(&self) -> bool {
        self.read_drained.load(Relaxed)
    }

    /// Whether anything happened to the connection since [`rest`](Self::rest).
    pub(super) fn was_woken(&self) -> bool {
        self.woken.load(Relaxed)
    }

    /// Called before the poll that lays a connection to rest.
    pub(super) fn clear_woken(&self) {
        self.woken.store(false, Relaxed);
    }
}

/// The waker of a connection at rest: it wakes nobody and leaves a mark for the sweep.
impl Wake for IoCounts {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Relaxed);
    }
}

/// IoCounts the bytes that pass through a stream.
pub(super) struct Metered<S> {
    stream: S,
    io_counts: Arc<IoCounts>,
    tls_records: bool,
    read_once_per_poll: bool,
}

impl<S> Metered<S> {
    pub(super) fn new(stream: S, io_counts: Arc<IoCounts>) -> Self {
        Self {
            stream,
            io_counts,
            tls_records: false,
            read_once_per_poll: false,
        }
    }

    /// Whoever polls says so [before](IoCounts::begin_poll). hyper asks for more several times in one poll: once there is
    /// none, the stream knows whom to wake, and need not be asked again in that poll.
    pub(super) fn read_once_per_poll(self) -> Self {
        Self {
            read_once_per_poll: true,
            ..self
        }
    }

    /// The stream cuts what is written into records, as TLS does: some may have gone out when it says that a write
    /// has failed.
    pub(super) fn tls_records(self, tls_records: bool) -> Self {
        Self {
            tls_records,
            ..self
        }
    }

    /// What to tell hyper of a write of `len` bytes.
    ///
    /// A server may answer and close while the request is still being sent. hyper would drop
    /// that answer for the failed write, so a write that the peer refuses is reported as done:
    /// what can still be read, be it an answer or the end, then decides.
    fn record_write(&self, result: io::Result<usize>, len: usize) -> io::Result<usize> {
        let written = match result {
            Ok(n) => n,
            Err(_) if self.tls_records => len,
            Err(_) => 0,
        };
        let total = &self.io_counts.written;
        total.store(total.load(Relaxed) + written as u64, Relaxed);
        match result {
            Ok(n) => Ok(n),
            Err(error) if is_peer_closed(&error) => {
                self.io_counts.write_closed.store(true, Relaxed);
                Ok(len)
            }
            Err(error) => Err(error),
        }
    }
}

fn is_peer_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
    )
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read_once_per_poll && self.io_counts.is_read_drained() {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let Poll::Ready(result) = Pin::new(&mut self.stream).poll_read(cx, buffer) else {
            self.io_counts.read_drained.store(true, Relaxed);
            return Poll::Pending;
        };
        self.io_counts
            .scan_informational(&buffer.filled()[before..]);
        let read = &self.io_counts.read;
        let n = buffer.filled().len() - before;
        read.store(read.load(Relaxed) + n as u64, Relaxed);
        if result.as_ref().is_err_and(tls::is_tls_error) {
            self.io_counts.tls_failure.store(true, Relaxed);
        }
        Poll::Ready(result)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.io_counts.is_write_closed() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let result = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        Poll::Ready(self.record_write(result, bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // Of a piece on its own the system makes less ado when it is not put as one of several.
        if let [slice] = slices {
            return self.poll_write(cx, slice);
        }
        let len = slices.iter().map(|slice| slice.len()).sum();
        if self.io_counts.is_write_closed() {
            return Poll::Ready(Ok(len));
        }
        let result = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices));
        Poll::Ready(self.record_write(result, len))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.io_counts.is_write_closed() {
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
    async fn bytes_are_counted_from_the_last_reset_on() {
        let (near, mut far) = tokio::io::duplex(64);
        let io_counts = Arc::new(IoCounts::default());
        let mut metered = Metered::new(near, Arc::clone(&io_counts));
        metered.write_all(b"before").await.unwrap();
        io_counts.reset();
        metered.write_all(b"request").await.unwrap();
        far.write_all(b"answer").await.unwrap();
        metered.read_exact(&mut [0; 4]).await.unwrap();
        assert_eq!((io_counts.written(), io_counts.read()), (7, 4));
    }

    #[tokio::test]
    async fn after_a_refused_write_the_answer_can_still_be_read() {
        let (near, mut far) = tokio::io::duplex(64);
        far.write_all(b"answer").await.unwrap();
        drop(far);
        let io_counts = Arc::new(IoCounts::default());
        let mut metered = Metered::new(near, Arc::clone(&io_counts));
        metered.write_all(b"request").await.unwrap();
        metered.flush().await.unwrap();
        assert!(io_counts.is_write_closed());
        assert_eq!(io_counts.written(), 0);
        let mut answer = String::new();
        metered.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
    }

    /// Refuses every write, as `0` says.
    struct Refusing(io::ErrorKind);

    impl AsyncWrite for Refusing {
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

    impl AsyncRead for Refusing {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn of_a_failed_write_in_records_some_may_have_gone_out() {
        for kind in [io::ErrorKind::BrokenPipe, io::ErrorKind::Other] {
            for (tls_records, written) in [(false, 0), (true, 7)] {
                let io_counts = Arc::new(IoCounts::default());
                let metered = Metered::new(Refusing(kind), Arc::clone(&io_counts));
                let mut metered = metered.tls_records(tls_records);
                let result = metered.write_all(b"request").await;
                assert_eq!(result.is_ok(), kind == io::ErrorKind::BrokenPipe);
                assert_eq!(io_counts.written(), written, "{kind:?}");
            }
        }
    }
}

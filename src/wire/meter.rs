//! The meter on a connection's stream: how much of this exchange each side can have seen.
//!
//! hyper reports a connection that closed before one byte, in the midst of a head, and after an
//! interim response all alike. These counts tell them apart, and so decide whether a request may
//! have reached the server.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::interim::Interim;
use super::tls;

/// Shared by the meter, which is inside hyper's connection, and the connection's owner.
///
/// Only the task that polls the connection writes the byte counts, so a load and a store do for
/// an addition.
#[derive(Default)]
pub(super) struct Counts {
    written: AtomicU64,
    read: AtomicU64,
    /// An [`Interim`], packed.
    interim: AtomicU32,
    severed: AtomicBool,
    stirred: AtomicBool,
    /// In this poll of the connection there was nothing more to read.
    exhausted: AtomicBool,
    tls_failure: AtomicBool,
}

impl Counts {
    /// Starts a new exchange at zero.
    pub(super) fn reset(&self) {
        self.written.store(0, Relaxed);
        self.read.store(0, Relaxed);
        self.interim.store(0, Relaxed);
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
    pub(super) fn interim(&self) -> u32 {
        Interim::unpacked(self.interim.load(Relaxed)).count()
    }

    /// Without counting informational answers: what is read is not HTTP/1.
    #[cfg(feature = "http2")]
    pub(super) fn of_frames() -> Self {
        Self {
            interim: AtomicU32::new(Interim::NONE.packed()),
            ..Self::default()
        }
    }

    fn count_interim(&self, bytes: &[u8]) {
        let mut interim = Interim::unpacked(self.interim.load(Relaxed));
        if interim.pass(bytes) {
            self.interim.store(interim.packed(), Relaxed);
        }
    }

    /// Whether the peer refuses to read on.
    pub(super) fn is_severed(&self) -> bool {
        self.severed.load(Relaxed)
    }

    /// Whether reading ended with an error of TLS, such as an alert.
    pub(super) fn is_tls_failure(&self) -> bool {
        self.tls_failure.load(Relaxed)
    }

    /// Called before the connection is polled.
    pub(super) fn begin_poll(&self) {
        self.exhausted.store(false, Relaxed);
    }

    /// Whether all has been read that there was at the last poll.
    pub(super) fn is_exhausted(&self) -> bool {
        self.exhausted.load(Relaxed)
    }

    /// Whether anything happened to the connection since [`rest`](Self::rest).
    pub(super) fn is_stirred(&self) -> bool {
        self.stirred.load(Relaxed)
    }

    /// Called before the poll that lays a connection to rest.
    pub(super) fn rest(&self) {
        self.stirred.store(false, Relaxed);
    }
}

/// The waker of a connection at rest: it wakes nobody and leaves a mark for the sweep.
impl Wake for Counts {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.stirred.store(true, Relaxed);
    }
}

/// Counts the bytes that pass through a stream.
pub(super) struct Meter<S> {
    stream: S,
    counts: Arc<Counts>,
    in_records: bool,
    by_turns: bool,
}

impl<S> Meter<S> {
    pub(super) fn new(stream: S, counts: Arc<Counts>) -> Self {
        Self {
            stream,
            counts,
            in_records: false,
            by_turns: false,
        }
    }

    /// Whoever polls says so [before](Counts::begin_poll). hyper asks for more several times in one poll: once there is
    /// none, the stream knows whom to wake, and need not be asked again in that poll.
    pub(super) fn polled_by_turns(self) -> Self {
        Self {
            by_turns: true,
            ..self
        }
    }

    /// The stream cuts what is written into records, as TLS does: some may have gone out when it says that a write
    /// has failed.
    pub(super) fn in_records(self, in_records: bool) -> Self {
        Self { in_records, ..self }
    }

    /// What to tell hyper of a write of `len` bytes.
    ///
    /// A server may answer and close while the request is still being sent. hyper would drop
    /// that answer for the failed write, so a write that the peer refuses is reported as done:
    /// what can still be read, be it an answer or the end, then decides.
    fn wrote(&self, result: io::Result<usize>, len: usize) -> io::Result<usize> {
        let written = match result {
            Ok(n) => n,
            Err(_) if self.in_records => len,
            Err(_) => 0,
        };
        let total = &self.counts.written;
        total.store(total.load(Relaxed) + written as u64, Relaxed);
        match result {
            Ok(n) => Ok(n),
            Err(error) if is_refusal(&error) => {
                self.counts.severed.store(true, Relaxed);
                Ok(len)
            }
            Err(error) => Err(error),
        }
    }
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
    )
}

impl<S: AsyncRead + Unpin> AsyncRead for Meter<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.by_turns && self.counts.is_exhausted() {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let Poll::Ready(result) = Pin::new(&mut self.stream).poll_read(cx, buffer) else {
            self.counts.exhausted.store(true, Relaxed);
            return Poll::Pending;
        };
        self.counts.count_interim(&buffer.filled()[before..]);
        let read = &self.counts.read;
        let n = buffer.filled().len() - before;
        read.store(read.load(Relaxed) + n as u64, Relaxed);
        if result.as_ref().is_err_and(tls::is_tls) {
            self.counts.tls_failure.store(true, Relaxed);
        }
        Poll::Ready(result)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Meter<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.counts.is_severed() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let result = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        Poll::Ready(self.wrote(result, bytes.len()))
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
        if self.counts.is_severed() {
            return Poll::Ready(Ok(len));
        }
        let result = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices));
        Poll::Ready(self.wrote(result, len))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.counts.is_severed() {
            return Poll::Ready(Ok(()));
        }
        let result = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        Poll::Ready(self.wrote(result.map(|()| 0), 0).map(|_| ()))
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
        let counts = Arc::new(Counts::default());
        let mut meter = Meter::new(near, Arc::clone(&counts));
        meter.write_all(b"before").await.unwrap();
        counts.reset();
        meter.write_all(b"request").await.unwrap();
        far.write_all(b"answer").await.unwrap();
        meter.read_exact(&mut [0; 4]).await.unwrap();
        assert_eq!((counts.written(), counts.read()), (7, 4));
    }

    #[tokio::test]
    async fn after_a_refused_write_the_answer_can_still_be_read() {
        let (near, mut far) = tokio::io::duplex(64);
        far.write_all(b"answer").await.unwrap();
        drop(far);
        let counts = Arc::new(Counts::default());
        let mut meter = Meter::new(near, Arc::clone(&counts));
        meter.write_all(b"request").await.unwrap();
        meter.flush().await.unwrap();
        assert!(counts.is_severed());
        assert_eq!(counts.written(), 0);
        let mut answer = String::new();
        meter.read_to_string(&mut answer).await.unwrap();
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
            for (in_records, written) in [(false, 0), (true, 7)] {
                let counts = Arc::new(Counts::default());
                let meter = Meter::new(Refusing(kind), Arc::clone(&counts));
                let mut meter = meter.in_records(in_records);
                let result = meter.write_all(b"request").await;
                assert_eq!(result.is_ok(), kind == io::ErrorKind::BrokenPipe);
                assert_eq!(counts.written(), written, "{kind:?}");
            }
        }
    }
}

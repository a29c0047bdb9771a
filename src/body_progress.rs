//! How much of a response body has arrived, published while the body is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How much of one response body has arrived.
///
/// [`RequestBuilder::body_progress`](crate::RequestBuilder::body_progress) makes a request publish
/// its progress. Clones show the same progress, so one clone can be moved to the code that draws a
/// progress bar. Each request needs a `BodyProgress` of its own.
///
/// [`Progress::body_bytes`](crate::Progress::body_bytes) is the sum over all requests of a batch.
///
/// # Examples
///
/// ```
/// use fanout::{BodyProgress, Request};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> fanout::Result<()> {
/// # let app = axum::Router::new().fallback(|| async { "0123456789" });
/// # let fetcher = fanout::Fetcher::builder().transport(app).build()?;
/// let progress = BodyProgress::new();
/// let request = Request::get("http://files.example/large").body_progress(&progress);
/// let watch = tokio::spawn({
///     let progress = progress.clone();
///     async move {
///         loop {
///             tokio::time::sleep(std::time::Duration::from_millis(100)).await;
///             println!("{} of {:?}", progress.received_bytes(), progress.total_bytes());
///         }
///     }
/// });
/// fetcher.fetch(request).await?;
/// watch.abort();
/// assert_eq!(progress.received_bytes(), 10);
/// assert_eq!(progress.total_bytes(), Some(10));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct BodyProgress(Arc<BodyCounts>);

#[derive(Debug)]
struct BodyCounts {
    received_bytes: AtomicU64,
    /// [`UNKNOWN_TOTAL`] if the length is unknown.
    total_bytes: AtomicU64,
}

const UNKNOWN_TOTAL: u64 = u64::MAX;

impl Default for BodyCounts {
    fn default() -> Self {
        Self {
            received_bytes: AtomicU64::new(0),
            total_bytes: AtomicU64::new(UNKNOWN_TOTAL),
        }
    }
}

impl BodyProgress {
    /// Creates the progress of a body of which nothing has arrived.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of body bytes that have arrived, after decoding.
    ///
    /// If an attempt fails and the request is retried, the number starts again at 0, or at the
    /// bytes that are kept of a [saved](crate::RequestBuilder::save_to) file. The number changes
    /// when the head of the new response has arrived.
    pub fn received_bytes(&self) -> u64 {
        self.0.received_bytes.load(Relaxed)
    }

    /// The length of the whole body, as soon as it is known.
    ///
    /// `None` before the response head, and until the end of a body that is decoded or has no
    /// `Content-Length`.
    pub fn total_bytes(&self) -> Option<u64> {
        Some(self.0.total_bytes.load(Relaxed)).filter(|total| *total != UNKNOWN_TOTAL)
    }
}

/// Publishes the progress of one body, to the engine and to the [`BodyProgress`] of the request.
#[derive(Copy, Clone)]
pub(crate) struct BodyMeter<'a> {
    /// The number of bytes of a body that is being read; zero for a body that arrives in one chunk.
    bytes_in_flight: &'a AtomicU64,
    progress: Option<&'a BodyProgress>,
}

impl<'a> BodyMeter<'a> {
    pub(crate) fn new(bytes_in_flight: &'a AtomicU64, progress: Option<&'a BodyProgress>) -> Self {
        Self {
            bytes_in_flight,
            progress,
        }
    }

    /// Records the start of a body of which `received` bytes were received in earlier attempts.
    pub(crate) fn start(self, received: u64, total: Option<u64>) {
        if received > 0 {
            self.bytes_in_flight.store(received, Relaxed);
        }
        if let Some(BodyProgress(counts)) = self.progress {
            counts.received_bytes.store(received, Relaxed);
            let total = total.unwrap_or(UNKNOWN_TOTAL);
            counts.total_bytes.store(total, Relaxed);
        }
    }

    /// Records the number of bytes received so far.
    pub(crate) fn record(self, received: u64) {
        self.bytes_in_flight.store(received, Relaxed);
        if let Some(BodyProgress(counts)) = self.progress {
            counts.received_bytes.store(received, Relaxed);
        }
    }

    /// Records that the body is complete.
    pub(crate) fn finish(self, total: u64) {
        if let Some(BodyProgress(counts)) = self.progress {
            counts.received_bytes.store(total, Relaxed);
            counts.total_bytes.store(total, Relaxed);
        }
    }
}

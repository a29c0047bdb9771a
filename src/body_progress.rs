//! How much of a response body has arrived, published while the body is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How much of one response body has arrived.
///
/// [`RequestBuilder::body_progress`](crate::RequestBuilder::body_progress) makes a request publish
/// its progress. Clones show the same progress, so one clone can be moved to the code that draws a
/// progress bar. Each request needs a `BodyProgress` of its own.
///
/// For the sum over all requests of a batch, see
/// [`Progress::body_bytes`](crate::Progress::body_bytes).
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
pub struct BodyProgress(Arc<BodyByteCounts>);

#[derive(Debug)]
struct BodyByteCounts {
    received_bytes: AtomicU64,
    /// The length of the body, or [`UNKNOWN_TOTAL_BYTES`].
    total_bytes: AtomicU64,
}

const UNKNOWN_TOTAL_BYTES: u64 = u64::MAX;

impl Default for BodyByteCounts {
    fn default() -> Self {
        Self {
            received_bytes: AtomicU64::new(0),
            total_bytes: AtomicU64::new(UNKNOWN_TOTAL_BYTES),
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
    /// When a retry receives its response head, the number falls to 0. For a
    /// [saved](crate::RequestBuilder::save_to) file, it falls to the length of the part that is
    /// kept.
    pub fn received_bytes(&self) -> u64 {
        self.0.received_bytes.load(Relaxed)
    }

    /// The length of the whole body, as soon as it is known.
    ///
    /// Returns `None` before the response head has arrived. If the body is decoded or has no
    /// `Content-Length`, returns `None` until the body has ended.
    pub fn total_bytes(&self) -> Option<u64> {
        Some(self.0.total_bytes.load(Relaxed)).filter(|total| *total != UNKNOWN_TOTAL_BYTES)
    }
}

/// Publishes the progress of one body, to the engine and to the [`BodyProgress`] of the request.
#[derive(Copy, Clone)]
pub(crate) struct BodyProgressMeter<'a> {
    /// The number of received bytes of a body that is being read. Stays zero for a body that
    /// arrives in one chunk.
    body_bytes_in_flight: &'a AtomicU64,
    request_progress: Option<&'a BodyProgress>,
}

impl<'a> BodyProgressMeter<'a> {
    pub(crate) fn new(
        body_bytes_in_flight: &'a AtomicU64,
        request_progress: Option<&'a BodyProgress>,
    ) -> Self {
        Self {
            body_bytes_in_flight,
            request_progress,
        }
    }

    /// Records the start of a body. `received` is the number of its bytes that earlier attempts
    /// received.
    pub(crate) fn record_body_start(self, received: u64, total: Option<u64>) {
        if received > 0 {
            self.body_bytes_in_flight.store(received, Relaxed);
        }
        if let Some(BodyProgress(counts)) = self.request_progress {
            counts.received_bytes.store(received, Relaxed);
            let total = total.unwrap_or(UNKNOWN_TOTAL_BYTES);
            counts.total_bytes.store(total, Relaxed);
        }
    }

    /// Records the number of bytes received so far.
    pub(crate) fn record_received_bytes(self, received: u64) {
        self.body_bytes_in_flight.store(received, Relaxed);
        if let Some(BodyProgress(counts)) = self.request_progress {
            counts.received_bytes.store(received, Relaxed);
        }
    }

    /// Records that the body is complete.
    pub(crate) fn record_body_end(self, total: u64) {
        if let Some(BodyProgress(counts)) = self.request_progress {
            counts.received_bytes.store(total, Relaxed);
            counts.total_bytes.store(total, Relaxed);
        }
    }
}

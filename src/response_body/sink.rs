//! The destination of a response body: memory, a file or the user's handler.

use std::sync::Arc;

use http::StatusCode;

use super::file_sink::FileSink;
use super::handler_sink::{BodyHandler, HandlerOutput, HandlerSink};
use crate::request::Request;

/// The destination of one job's body, with the progress so far. The sink is kept from one attempt
/// of the job to the next.
#[derive(Default)]
pub(crate) enum BodySink {
    #[default]
    Memory,
    /// Saves the body of a 2xx response to a file. Other bodies go to memory.
    File(Box<FileSink>),
    /// Streams the body to the user's handler.
    Handler(Box<HandlerSink>),
}

impl BodySink {
    pub(crate) fn for_request(request: &Request, handler: Option<&Arc<dyn BodyHandler>>) -> Self {
        match (handler, request.save_path()) {
            (Some(handler), _) => Self::Handler(Box::new(HandlerSink::new(handler))),
            (None, Some(path)) => Self::File(Box::new(FileSink::new(Arc::clone(path)))),
            (None, None) => Self::Memory,
        }
    }

    /// Whether the body of a response with this status is streamed to a file or a handler, instead
    /// of collected in memory.
    pub(crate) fn is_streamed(&self, status: StatusCode, is_range_request: bool) -> bool {
        match self {
            Self::Memory => false,
            Self::File(sink) => sink.accepts_status(status, is_range_request),
            Self::Handler(_) => true,
        }
    }

    /// Whether a handler has started to read the body. A request whose handler has started is not
    /// sent again.
    pub(crate) fn has_handler_started(&self) -> bool {
        matches!(self, Self::Handler(sink) if sink.has_handler_started)
    }

    /// Whether the sink has a handler, and the handler has not returned a value.
    pub(crate) fn lacks_handler_output(&self) -> bool {
        matches!(self, Self::Handler(sink) if sink.handler_output.is_none())
    }

    /// The number of body bytes that the handler has read. `None` without a handler.
    pub(crate) fn handler_read_bytes(&self) -> Option<u64> {
        match self {
            Self::Handler(sink) => Some(sink.bytes_read),
            Self::Memory | Self::File(_) => None,
        }
    }

    /// Takes the value that the handler returned.
    pub(crate) fn take_handler_output(&mut self) -> Option<HandlerOutput> {
        match self {
            Self::Handler(sink) => sink.handler_output.take(),
            Self::Memory | Self::File(_) => None,
        }
    }

    /// Ends an exchange. Writes a partial download to its part file, or discards it if it cannot be
    /// resumed.
    pub(crate) async fn keep_resumable_download(&mut self) {
        if let Self::File(sink) = self {
            Box::pin(sink.keep_resumable_download()).await;
        }
    }

    /// If the file of a download has grown, none of the retries so far count any more.
    /// `charged_retry_count` is the number of retries so far that count towards the retry limit.
    pub(crate) fn renew_retries_if_file_grew(&mut self, charged_retry_count: u32) {
        if let Self::File(sink) = self {
            sink.retry_renewal_mut()
                .renew_if_file_grew(charged_retry_count);
        }
    }

    /// The number of retries that no longer count towards the retry limit, because the file has
    /// grown after them.
    pub(crate) fn uncounted_retry_count(&self) -> u32 {
        match self {
            Self::File(sink) => sink.retry_renewal().uncounted_retry_count(),
            Self::Memory | Self::Handler(_) => 0,
        }
    }
}

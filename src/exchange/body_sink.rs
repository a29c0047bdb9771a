//! What becomes of the body of an answer.

use std::sync::Arc;

use http::StatusCode;
use url::Url;

use super::decision::HopDecision;
use super::file_sink::FileSink;
use super::handler::{BodyHandler, HandlerOutput, HandlerSink};
use crate::Request;

/// Where a job's body goes, and how far it has come; kept from one attempt to the next.
#[derive(Default)]
pub(crate) enum BodySink {
    /// Into memory.
    #[default]
    Memory,
    /// To a file, if the status is 2xx.
    File(Box<FileSink>),
    /// Through a handler.
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

    /// Whether the body of an answer with this status is handed on as it comes.
    pub(super) fn is_streamed(&self, status: StatusCode, is_range_request: bool) -> bool {
        match self {
            Self::Memory => false,
            Self::File(file_sink) => file_sink.accepts(status, is_range_request),
            Self::Handler(_) => true,
        }
    }

    /// Whether a handler has had the head: then there is no other attempt.
    pub(crate) fn handler_started(&self) -> bool {
        matches!(self, Self::Handler(handler_sink) if handler_sink.handler_started)
    }

    /// What was made of the head of the last answer, if that is settled.
    pub(crate) fn take_decision(&mut self) -> Option<HopDecision> {
        match self {
            Self::Handler(handler_sink) => handler_sink.decision.take(),
            Self::Memory | Self::File(_) => None,
        }
    }

    /// Whether a handler has yet to read an answer.
    pub(crate) fn lacks_handler_output(&self) -> bool {
        matches!(self, Self::Handler(handler_sink) if handler_sink.output.is_none())
    }

    /// How much a handler has read.
    pub(crate) fn handler_bytes(&self) -> Option<u64> {
        match self {
            Self::Handler(handler_sink) => Some(handler_sink.bytes_read),
            Self::Memory | Self::File(_) => None,
        }
    }

    /// What the handler returned.
    pub(crate) fn take_handler_output(&mut self) -> Option<HandlerOutput> {
        match self {
            Self::Handler(handler_sink) => handler_sink.output.take(),
            Self::Memory | Self::File(_) => None,
        }
    }

    /// The request to send instead of this one, which asks for what is missing.
    pub(super) fn range_request(&self, request: &Request, url: &Url) -> Option<Box<Request>> {
        match self {
            Self::File(file_sink) => file_sink.range_request(request, url),
            Self::Memory | Self::Handler(_) => None,
        }
    }
}

//! What becomes of the body of an answer.

use std::sync::Arc;

use http::StatusCode;
use url::Url;

use super::handle::{Handling, Output, ReadBody};
use super::save::Saving;
use super::verdict::Verdict;
use crate::Request;

/// Where a job's body goes, and how far it has come; kept from one attempt to the next.
#[derive(Default)]
pub(crate) enum Reading {
    /// Into memory.
    #[default]
    Kept,
    /// To a file, if the status is 2xx.
    Saved(Box<Saving>),
    /// Through a handler.
    Handled(Box<Handling>),
}

impl Reading {
    pub(crate) fn of(request: &Request, handler: Option<&Arc<dyn ReadBody>>) -> Self {
        match (handler, request.save_path()) {
            (Some(handler), _) => Self::Handled(Box::new(Handling::new(handler))),
            (None, Some(path)) => Self::Saved(Box::new(Saving::new(Arc::clone(path)))),
            (None, None) => Self::Kept,
        }
    }

    /// Whether the body of an answer with this status is handed on as it comes.
    pub(super) fn streams(&self, status: StatusCode, resumed: bool) -> bool {
        match self {
            Self::Kept => false,
            Self::Saved(saving) => saving.takes(status, resumed),
            Self::Handled(_) => true,
        }
    }

    /// Whether a handler has had the head: then there is no other attempt.
    pub(crate) fn is_given(&self) -> bool {
        matches!(self, Self::Handled(handling) if handling.given)
    }

    /// What was made of the head of the last answer, if that is settled.
    pub(crate) fn take_verdict(&mut self) -> Option<Verdict> {
        match self {
            Self::Handled(handling) => handling.verdict.take(),
            Self::Kept | Self::Saved(_) => None,
        }
    }

    /// Whether a handler has yet to read an answer.
    pub(crate) fn is_unread(&self) -> bool {
        matches!(self, Self::Handled(handling) if handling.output.is_none())
    }

    /// How much a handler has read.
    pub(crate) fn bytes(&self) -> Option<u64> {
        match self {
            Self::Handled(handling) => Some(handling.bytes),
            Self::Kept | Self::Saved(_) => None,
        }
    }

    /// What the handler returned.
    pub(crate) fn take_output(&mut self) -> Option<Output> {
        match self {
            Self::Handled(handling) => handling.output.take(),
            Self::Kept | Self::Saved(_) => None,
        }
    }

    /// The request to send instead of this one, which asks for what is missing.
    pub(super) fn resumed(&self, request: &Request, url: &Url) -> Option<Box<Request>> {
        match self {
            Self::Saved(saving) => saving.resumed(request, url),
            Self::Kept | Self::Handled(_) => None,
        }
    }
}

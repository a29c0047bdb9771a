//! Errors that a mock injects.

use crate::error::{Error, ErrorKind};

/// The detail of every injected error and the message of an injected panic.
pub(super) const INJECTED_ERROR_DETAIL: &str = "injected by the mock";

pub(super) fn injected_error(kind: ErrorKind) -> Error {
    Error::from_kind(kind).with_detail(INJECTED_ERROR_DETAIL)
}

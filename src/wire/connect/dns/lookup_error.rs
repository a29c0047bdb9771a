//! The error of a DNS lookup.

use std::io;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, SharedErrorSource};

/// A failed lookup. Every request that waited for the lookup gets a copy.
#[derive(Clone, Debug)]
pub(super) struct LookupError {
    pub(super) error_kind: ErrorKind,
    /// The cause of the failure. `None` if the user's resolver panicked.
    error_source: Option<SharedErrorSource>,
}

impl LookupError {
    pub(super) fn from_resolver_panic() -> Self {
        Self {
            error_kind: ErrorKind::Panicked,
            error_source: None,
        }
    }

    pub(super) fn into_error(self) -> Error {
        match self.error_source {
            Some(source) => Error::new(self.error_kind, source),
            None => Error::from_kind(self.error_kind).with_detail("in the resolver"),
        }
    }
}

impl From<io::Error> for LookupError {
    fn from(error: io::Error) -> Self {
        let error_kind = if is_host_not_found(&error) {
            ErrorKind::HostNotFound
        } else {
            ErrorKind::Dns
        };
        Self {
            error_kind,
            error_source: Some(Arc::new(error)),
        }
    }
}

/// Returns whether the error means that the name does not exist or has no address. Any other error
/// means that the lookup itself failed.
///
/// The standard library keeps only the message of a `getaddrinfo` error, not its code. An unknown
/// message counts as a failure of the lookup, which is retried.
fn is_host_not_found(error: &io::Error) -> bool {
    /// The messages of glibc (two), musl, BSD and macOS (two), and Android.
    const HOST_NOT_FOUND_MESSAGES: [&str; 6] = [
        "Name or service not known",
        "No address associated with hostname",
        "Name does not resolve",
        "nodename nor servname provided, or not known",
        "No address associated with nodename",
        "Name has no usable address",
    ];
    // The Windows error codes WSAHOST_NOT_FOUND and WSANO_DATA.
    let is_windows_not_found = cfg!(windows) && matches!(error.raw_os_error(), Some(11001 | 11004));
    is_windows_not_found || error.kind() == io::ErrorKind::NotFound || {
        let message = error.to_string();
        HOST_NOT_FOUND_MESSAGES
            .iter()
            .any(|suffix| message.ends_with(suffix))
    }
}

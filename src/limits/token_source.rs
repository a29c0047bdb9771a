//! The user's function that provides bearer tokens for an origin.

use std::pin::Pin;
use std::sync::Arc;

use crate::error::BoxError;

pub(crate) type TokenFuture = Pin<Box<dyn Future<Output = Result<String, BoxError>> + Send>>;

/// A function that provides bearer tokens. Two token sources are equal if one is a clone of the
/// other.
#[derive(Clone)]
pub(crate) struct TokenSource(Arc<dyn Fn() -> TokenFuture + Send + Sync>);

impl TokenSource {
    pub(super) fn new<F, A>(source: F) -> Self
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Result<String, BoxError>> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(source())))
    }

    /// Calls the user's function, which may panic.
    pub(crate) fn request_token(&self) -> TokenFuture {
        (self.0)()
    }
}

impl PartialEq for TokenSource {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

//! One request, one response: the head that is sent, the transport, the body that comes back.
//!
//! Nothing here waits for anything but the peer, and nothing here knows of retries: those are the engine's, by the
//! [verdict] on what came back.

mod body;
mod head;
pub(crate) mod redirect;
mod transport;
pub(crate) mod verdict;

use std::sync::Arc;

use bytes::Bytes;
use url::Url;

pub(crate) use head::Heads;
pub(crate) use transport::{Service, Transport};

use crate::body::Failure;
use crate::wire::Progress;
use crate::{Error, Request, Response};

/// What every exchange of a Fetcher shares.
pub(crate) struct Exchange {
    pub(crate) transport: Transport,
    pub(crate) heads: Heads,
    /// The most bytes a body may have.
    pub(crate) body_cap: u64,
}

impl Exchange {
    /// Sends `request` once and reads the whole answer; if it is a redirect that is to be followed, only its head.
    pub(crate) async fn run(
        &self,
        request: &Request,
        follows: bool,
        progress: &Progress,
    ) -> Result<Response, Error> {
        let failure = request.content().failure();
        let outcome = self
            .transact(request, follows, failure.as_ref(), progress)
            .await;
        match failure {
            // Whatever came of it: the connection was lost because the body was.
            Some(failure) if outcome.is_err() => failure.take().map_or(outcome, Err),
            _ => outcome,
        }
    }

    async fn transact(
        &self,
        request: &Request,
        follows: bool,
        failure: Option<&Failure>,
        progress: &Progress,
    ) -> Result<Response, Error> {
        let url: &Arc<Url> = request.check()?;
        let (head, mut incoming) = self
            .transport
            .send(&self.heads, request, url, failure, progress)
            .await?;
        let body = if follows && redirect::points_elsewhere(head.status, &head.headers) {
            body::pass_over(&mut incoming, progress).await;
            Bytes::new()
        } else {
            body::collect(&mut incoming, self.body_cap, progress).await?
        };
        Ok(Response::new(
            head.status,
            head.version,
            head.headers,
            Arc::clone(url),
            body,
        ))
    }
}

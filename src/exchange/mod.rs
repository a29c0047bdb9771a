//! One request, one response: the head that is sent, the transport, the body that comes back.
//!
//! Nothing here waits for anything but the peer, and nothing here knows of retries: those are the engine's, by the
//! [verdict] on what came back.

mod body;
mod handle;
mod head;
mod partial;
mod reading;
pub(crate) mod redirect;
mod resume;
mod save;
mod transport;
pub(crate) mod verdict;

use std::sync::Arc;

use bytes::Bytes;
use http::response::Parts;
use url::Url;

pub(crate) use handle::{ReadBody, handler};
pub(crate) use head::Heads;
pub(crate) use reading::Reading;
pub(crate) use transport::{Service, Transport};

use crate::body::Failure;
use crate::limits::Retry;
use crate::wire::Progress;
use crate::{Error, Request, Response};
use body::Reader;
use handle::Handling;

/// What every exchange of a Fetcher shares.
pub(crate) struct Exchange {
    pub(crate) transport: Transport,
    pub(crate) heads: Heads,
    /// The most bytes a body may have.
    pub(crate) body_cap: u64,
}

impl Exchange {
    /// Sends a request once and does with the answer what `reading` says; of a redirect that is to be followed it takes
    /// only the head.
    pub(crate) async fn run(
        &self,
        asked: Asked<'_>,
        reading: &mut Reading,
        progress: &Progress,
    ) -> Result<Response, Error> {
        let failure = asked.request.content().failure();
        let outcome = self
            .transact(asked, reading, failure.as_ref(), progress)
            .await;
        match failure {
            // Whatever came of it: the connection was lost because the body was.
            Some(failure) if outcome.is_err() => failure.take().map_or(outcome, Err),
            _ => outcome,
        }
    }

    async fn transact(
        &self,
        asked: Asked<'_>,
        reading: &mut Reading,
        failure: Option<&Failure>,
        progress: &Progress,
    ) -> Result<Response, Error> {
        let url: &Arc<Url> = asked.request.check()?;
        let resumed = reading.resumed(asked.request, url);
        let request = resumed.as_deref().unwrap_or(asked.request);
        let (head, incoming) = self
            .transport
            .send(&self.heads, request, url, failure, progress)
            .await?;
        let mut reader = Reader::new(incoming, progress);
        let mut body = Bytes::new();
        let mut saved = None;
        if asked.follows && redirect::points_elsewhere(head.status, &head.headers) {
            body::pass_over(&mut reader).await;
        } else {
            match reading {
                Reading::Saved(saving) if saving.takes(head.status, resumed.is_some()) => {
                    // Boxed, so that its size is no burden to a body that is kept.
                    let save = saving.save(asked.request, url, &head, resumed.is_some(), reader);
                    saved = Some(Box::pin(save).await?);
                }
                Reading::Handled(handling) => {
                    let response = complete(head, url, body);
                    return Box::pin(asked.hand_over(response, handling, reader)).await;
                }
                _ => body = body::collect(&mut reader, self.body_cap).await?,
            }
        }
        let mut response = complete(head, url, body);
        if let Some(saved) = saved {
            response.set_saved(saved);
        }
        Ok(response)
    }
}

/// What an exchange is asked to do.
#[derive(Copy, Clone)]
pub(crate) struct Asked<'a> {
    /// That of the present hop.
    pub(crate) request: &'a Request,
    /// Whether a redirect is to be followed.
    pub(crate) follows: bool,
    /// By which it will be judged.
    pub(crate) retry: &'a Retry,
    /// How many retries there were.
    pub(crate) retries: u32,
}

impl Asked<'_> {
    /// Lets the handler read the body, unless the answer is one after which the request is sent again.
    async fn hand_over(
        self,
        response: Response,
        handling: &mut Handling,
        mut reader: Reader<'_>,
    ) -> Result<Response, Error> {
        let outcome = Ok(response);
        let verdict = verdict::judge(&outcome, self.request, self.retry, self.retries, true, 0.0);
        let response = outcome?;
        if verdict.retry_in().is_some() {
            body::pass_over(&mut reader).await;
        } else {
            handling.run(response.clone(), reader).await?;
        }
        Ok(response)
    }
}

fn complete(head: Parts, url: &Arc<Url>, body: Bytes) -> Response {
    let url = Arc::clone(url);
    Response::new(head.status, head.version, head.headers, url, body)
}

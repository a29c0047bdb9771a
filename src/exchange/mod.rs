//! One request, one response: the head that is sent, the transport, the body that comes back.
//!
//! Nothing here waits for anything but the peer, and nothing here knows of retries: those are the engine's, by the
//! [verdict] on what came back.

mod allowance;
mod body;
mod buffer;
#[cfg_attr(not(feature = "cookies"), path = "no_cookies.rs")]
mod cookies;
#[cfg_attr(
    not(any(
        feature = "brotli",
        feature = "deflate",
        feature = "gzip",
        feature = "zstd"
    )),
    path = "no_decode.rs"
)]
mod decode;
mod handle;
mod head;
mod partial;
mod reader;
mod reading;
pub(crate) mod redirect;
mod resume;
mod save;
mod spare;
mod transport;
pub(crate) mod verdict;

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::response::Parts;
use url::Url;

pub(crate) use buffer::{Buffer, Charge};
pub(crate) use cookies::Jar;
pub(crate) use decode::accepted;
pub(crate) use handle::{ReadBody, handler};
pub(crate) use head::Heads;
pub(crate) use reading::Reading;
pub(crate) use spare::Spares;
pub(crate) use transport::{Service, Transport};

use crate::body::Failure;
use crate::wire::Progress;
use crate::{Error, Request, Response};
use allowance::Allowance;
use decode::Decoder;
use handle::Handling;
use reader::{Decoded, Reader};
use verdict::Case;

/// What all exchanges of a Fetcher have in common.
pub(crate) struct Exchange {
    pub(crate) heads: Heads,
    /// The most bytes a body may have, when decoded.
    pub(crate) body_cap: u64,
    /// Whether content codings are undone.
    pub(crate) decode: bool,
    /// Whether the limits that servers announce are heeded.
    pub(crate) server_limits: bool,
    pub(crate) spares: Spares,
}

impl Exchange {
    /// Sends a request once and does with the answer what `reading` says; of a redirect that is to be followed it takes
    /// only the head.
    pub(crate) async fn run(
        &self,
        transport: &Transport,
        asked: Asked<'_>,
        reading: &mut Reading,
        charge: Option<&mut Charge>,
        progress: &Progress,
    ) -> Result<Response, Error> {
        let failure = asked.request.content().failure();
        let outcome = self
            .transact(
                transport,
                asked,
                reading,
                charge,
                failure.as_ref(),
                progress,
            )
            .await;
        match failure {
            // Whatever came of it: the connection was lost because the body was.
            Some(failure) if outcome.is_err() => failure.take().map_or(outcome, Err),
            _ => outcome,
        }
    }

    async fn transact(
        &self,
        transport: &Transport,
        asked: Asked<'_>,
        reading: &mut Reading,
        charge: Option<&mut Charge>,
        failure: Option<&Failure>,
        progress: &Progress,
    ) -> Result<Response, Error> {
        let url: &Arc<Url> = asked.request.check()?;
        let resumed = reading.resumed(asked.request, url);
        let request = resumed.as_deref().unwrap_or(asked.request);
        let (mut head, incoming) = transport
            .send(&self.heads, request, url, failure, progress)
            .await?;
        if self.server_limits
            && let Some(allowance) = Allowance::of(&head.headers)
        {
            progress.allow(allowance.remaining, allowance.reset_after);
        }
        self.heads.jar.keep(&head.headers, url);
        let mut reader = Reader::new(incoming, progress);
        if asked.goes_on_after(&head) {
            body::pass_over(&mut reader).await;
            return Ok(complete(head, url, Bytes::new()));
        }
        let resumed = resumed.is_some();
        let streams = reading.streams(head.status, resumed);
        let cap = if streams { u64::MAX } else { self.body_cap };
        let decoder = match self.decode {
            true => Decoder::of(request.method(), &mut head, reader.incoming(), cap)?,
            false => None,
        };
        // Boxed, so that their size is no burden to a body that is kept.
        match reading {
            Reading::Saved(saving) if streams => {
                let body = Decoded::new(reader, decoder);
                let saved = saving.save(asked.request, url, &head, resumed, body);
                let saved = Box::pin(saved).await?;
                let mut response = complete(head, url, Bytes::new());
                response.set_saved(saved);
                Ok(response)
            }
            Reading::Handled(handling) => {
                let response = complete(head, url, Bytes::new());
                let body = Decoded::new(reader, decoder);
                Box::pin(asked.hand_over(response, handling, body)).await
            }
            _ => {
                let mut reader = reader.charged(charge);
                let body = match decoder {
                    None => body::collect(&mut reader, cap, &self.spares).await?,
                    Some(decoder) => decode::collect(decoder, &mut reader, cap).await?,
                };
                Ok(complete(head, url, body))
            }
        }
    }
}

/// What an exchange is asked to do.
#[derive(Copy, Clone)]
pub(crate) struct Asked<'a> {
    /// That of the present hop.
    pub(crate) request: &'a Request,
    /// Whether a redirect is to be followed.
    pub(crate) follows: bool,
    /// Whether it is to go again after a 401.
    pub(crate) renews: bool,
    /// By which it will be judged.
    pub(crate) case: Case<'a>,
}

impl Asked<'_> {
    /// Whether another hop comes after this answer, whose body nobody wants.
    fn goes_on_after(&self, head: &Parts) -> bool {
        let redirects = self.follows && redirect::points_elsewhere(head.status, &head.headers);
        let renews = self.renews && !self.request.content().is_spent();
        redirects || (renews && head.status == StatusCode::UNAUTHORIZED)
    }

    /// Lets the handler read the body, unless the answer is one after which the request is sent again.
    async fn hand_over(
        self,
        response: Response,
        handling: &mut Handling,
        body: Decoded<'_>,
    ) -> Result<Response, Error> {
        let outcome = Ok(response);
        let verdict = self.case.judge(&outcome, true, fastrand::f64())?;
        handling.verdict = Some(verdict);
        let response = outcome?;
        if verdict.goes_again() {
            body::pass_over(&mut body.into_coded()).await;
        } else {
            handling.run(response.clone(), body).await?;
        }
        Ok(response)
    }
}

fn complete(head: Parts, url: &Arc<Url>, body: Bytes) -> Response {
    let url = Arc::clone(url);
    Response::new(head.status, head.version, head.headers, url, body)
}

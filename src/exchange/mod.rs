//! One request, one response: the head that is sent, the transport, the body that comes back.
//!
//! Nothing here waits for anything but the peer, and nothing here knows of retries: those are the engine's, by the
//! [decision] on what came back.

#[cfg_attr(not(feature = "cookies"), path = "cookies/disabled.rs")]
mod cookies;
pub(crate) mod decision;
mod rate_limit_headers;
pub(crate) mod redirect;
mod request_headers;
mod transport;

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::response::Parts;
use url::Url;

pub(crate) use cookies::CookieJar;
pub(crate) use rate_limit_headers::RateLimit;
pub(crate) use request_headers::DefaultHeaders;
pub(crate) use transport::{Transport, TransportService};

use crate::attempt_clock::AttemptClock;
use crate::body::ErrorSlot;
use crate::body_budget::Reservation;
use crate::error::Error;
use crate::request::Request;
use crate::response::Response;
use crate::response_body::{
    BodyReader, BodySink, BufferPool, DecodedBody, Decoder, HandlerSink, drain, read_into_memory,
};
use crate::wire::StickyConnection;
use decision::RetryContext;

/// What all exchanges of a Fetcher have in common.
pub(crate) struct ExchangeContext {
    pub(crate) default_headers: DefaultHeaders,
    /// The most bytes a body may have, when decoded.
    pub(crate) max_body_size: u64,
    /// Whether content codings are undone.
    pub(crate) decode: bool,
    /// Whether the limits that servers announce are heeded.
    pub(crate) respect_rate_limit_headers: bool,
    pub(crate) buffer_pool: BufferPool,
}

impl ExchangeContext {
    /// Sends a request once and does with the answer what `body_sink` says; of a redirect that is to be followed it takes
    /// only the head.
    pub(crate) async fn run(
        &self,
        transport: &Transport,
        exchange_request: ExchangeRequest<'_>,
        state: AttemptState<'_>,
    ) -> Result<Response, Error> {
        let body_error = exchange_request.request.body().error_slot();
        let outcome = self
            .send_and_receive(transport, exchange_request, body_error.as_ref(), state)
            .await;
        match body_error {
            // Whatever came of it: the connection was lost because the body was.
            Some(body_error) if outcome.is_err() => body_error.take().map_or(outcome, Err),
            _ => outcome,
        }
    }

    async fn send_and_receive(
        &self,
        transport: &Transport,
        exchange_request: ExchangeRequest<'_>,
        body_error: Option<&ErrorSlot>,
        state: AttemptState<'_>,
    ) -> Result<Response, Error> {
        let AttemptState {
            clock,
            sticky,
            rate_limit,
            body_sink,
            reservation,
        } = state;
        let url: &Arc<Url> = exchange_request.request.checked_url()?;
        let range_request = body_sink.range_request(exchange_request.request, url);
        let request = range_request.as_deref().unwrap_or(exchange_request.request);
        let (mut head, incoming) = transport
            .send(
                &self.default_headers,
                request,
                url,
                body_error,
                clock,
                sticky,
            )
            .await?;
        if self.respect_rate_limit_headers {
            *rate_limit = RateLimit::from_headers(&head.headers);
        }
        self.default_headers.cookie_jar.store(&head.headers, url);
        let mut reader = BodyReader::new(incoming, clock, sticky);
        if exchange_request.drains_body(&head) {
            drain(&mut reader).await;
            return Ok(build_response(head, url, Bytes::new()));
        }
        let is_range_request = range_request.is_some();
        let is_streamed = body_sink.is_streamed(head.status, is_range_request);
        let cap = if is_streamed {
            u64::MAX
        } else {
            self.max_body_size
        };
        let decoder = match self.decode {
            true => {
                Decoder::for_response(request.method(), &mut head, reader.transport_body(), cap)?
            }
            false => None,
        };
        // Boxed, so that their size is no burden to a body that is kept.
        match body_sink {
            BodySink::File(sink) if is_streamed => {
                let body = DecodedBody::new(reader, decoder);
                let saved = sink.save(exchange_request.request, url, &head, is_range_request, body);
                let saved = Box::pin(saved).await?;
                let mut response = build_response(head, url, Bytes::new());
                response.set_saved_file(saved);
                Ok(response)
            }
            BodySink::Handler(sink) => {
                let response = build_response(head, url, Bytes::new());
                let body = DecodedBody::new(reader, decoder);
                Box::pin(exchange_request.run_handler(response, sink, body)).await
            }
            _ => {
                let pool = &self.buffer_pool;
                let body = read_into_memory(reader, decoder, reservation, cap, pool).await?;
                Ok(build_response(head, url, body))
            }
        }
    }
}

/// What a worker lends to the exchange of its current hop.
pub(crate) struct AttemptState<'a> {
    pub(crate) clock: &'a AttemptClock,
    /// The connection that the worker keeps between two exchanges.
    pub(crate) sticky: &'a mut StickyConnection,
    /// Set to the rate limit that the response head announces.
    pub(crate) rate_limit: &'a mut Option<RateLimit>,
    pub(crate) body_sink: &'a mut BodySink,
    /// The body's part of the batch's memory budget, if the batch has one.
    pub(crate) reservation: Option<&'a mut Reservation>,
}

/// What an exchange is exchange_request to do.
#[derive(Copy, Clone)]
pub(crate) struct ExchangeRequest<'a> {
    /// That of the present hop.
    pub(crate) request: &'a Request,
    /// Whether a redirect is to be followed.
    pub(crate) follow_redirects: bool,
    /// Whether it is to go again after a 401.
    pub(crate) resend_after_401: bool,
    /// By which it will be judged.
    pub(crate) retry_context: RetryContext<'a>,
}

impl ExchangeRequest<'_> {
    /// Whether another hop comes after this answer, whose body nobody wants.
    fn drains_body(&self, head: &Parts) -> bool {
        let redirects =
            self.follow_redirects && redirect::has_redirect_target(head.status, &head.headers);
        let renews = self.resend_after_401 && !self.request.body().is_consumed();
        redirects || (renews && head.status == StatusCode::UNAUTHORIZED)
    }

    /// Lets the handler read the body, unless the answer is one after which the request is sent again.
    async fn run_handler(
        self,
        response: Response,
        sink: &mut HandlerSink,
        body: DecodedBody<'_>,
    ) -> Result<Response, Error> {
        let outcome = Ok(response);
        let decision = self.retry_context.decide(&outcome, true, fastrand::f64())?;
        sink.decision = Some(decision);
        let response = outcome?;
        if decision.has_next_attempt() {
            drain(&mut body.into_encoded()).await;
        } else {
            sink.run(response.clone(), body).await?;
        }
        Ok(response)
    }
}

fn build_response(head: Parts, url: &Arc<Url>, body: Bytes) -> Response {
    let url = Arc::clone(url);
    Response::new(head.status, head.version, head.headers, url, body)
}

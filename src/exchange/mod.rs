//! An exchange: one request on the wire and its response. Builds the request headers, calls the
//! transport, and handles cookies, rate-limit headers and redirects.
//!
//! An exchange does not retry and follows no redirects: its caller decides about the next attempt
//! or hop. When the response head has arrived, the caller's [`ResponseHeadPolicy`] decides what
//! happens to the response body.

#[cfg_attr(not(feature = "cookies"), path = "cookies/disabled.rs")]
mod cookies;
mod outgoing_request;
mod rate_limit_headers;
pub(crate) mod redirect;
mod request_headers;
mod service;
mod spare_header_map;
mod transport;
mod wire_transport;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use http::StatusCode;
use http::header::HeaderMap;
use http::response::Parts;
use url::Url;

pub(crate) use cookies::CookieJar;
pub(crate) use rate_limit_headers::{AnnouncedLimits, delay_of_rate_limited_request};
pub(crate) use request_headers::DefaultHeaders;
pub(crate) use service::TransportService;
pub(crate) use transport::Transport;

use crate::body::BodyErrorSlot;
use crate::body_budget::BodyReservation;
use crate::body_progress::BodyProgressMeter;
use crate::error::Error;
use crate::hop_clock::HopClock;
use crate::request::Request;
use crate::response::Response;
use crate::response_body::{
    BodyReader, BodySink, BufferPool, DecodedBody, Decoder, HandlerSink, drain_body,
    read_into_memory,
};
use crate::wire::StickyConnection;
use outgoing_request::OutgoingRequest;

/// The settings and caches that all exchanges of a Fetcher share.
pub(crate) struct ExchangeSettings {
    pub(crate) default_headers: DefaultHeaders,
    /// The maximum size of a decoded body in memory, in bytes.
    pub(crate) max_body_size: u64,
    /// Whether content codings are decoded.
    pub(crate) decodes_content: bool,
    pub(crate) respect_rate_limit_headers: bool,
    pub(crate) buffer_pool: BufferPool,
}

/// Decides what happens to the body of a response whose head has arrived.
pub(crate) trait ResponseHeadPolicy {
    /// Whether another hop follows the response, as after a redirect. The body of such a response
    /// is discarded.
    fn decide_whether_next_hop_follows(&mut self, status: StatusCode, headers: &HeaderMap) -> bool;

    /// Whether the user's handler reads the body. Otherwise the body is discarded. `outcome` is the
    /// response without its body.
    ///
    /// # Errors
    ///
    /// Returns an error if the exchange must fail. This error is the outcome of the exchange.
    fn decide_whether_handler_starts(
        &mut self,
        outcome: &Result<Response, Error>,
    ) -> Result<bool, Error>;

    /// Adds the attempts and redirects of the request to the response that is passed to the
    /// handler. The last attempt is the current one, with its timings so far.
    fn add_history_to_response(&self, response: &mut Response);
}

/// The input of one exchange.
pub(crate) struct ExchangeInput<'a, P> {
    pub(crate) request: &'a Request,
    pub(crate) response_head_policy: P,
    pub(crate) hop_clock: &'a HopClock,
    /// The number of body bytes that have arrived. The exchange updates it while it reads the body.
    pub(crate) body_bytes_in_flight: &'a AtomicU64,
    /// The connection that the worker keeps for its next exchange, instead of returning it to the
    /// pool.
    pub(crate) sticky_connection: &'a mut StickyConnection,
    pub(crate) body_sink: &'a mut BodySink,
    /// The reservation of the request's body in the body budget of the batch. `None` if the batch
    /// has no body budget.
    pub(crate) body_reservation: Option<&'a mut BodyReservation>,
    /// Receives the rate limits that the response head announces.
    pub(crate) announced_limits: &'a mut Option<Box<AnnouncedLimits>>,
}

impl ExchangeSettings {
    /// Sends a request once. The body of the response goes to memory, to a file or to a handler.
    pub(crate) async fn run_exchange<P: ResponseHeadPolicy>(
        &self,
        transport: &Transport,
        exchange: ExchangeInput<'_, P>,
    ) -> Result<Response, Error> {
        let body_error = exchange.request.body().new_body_error_slot();
        let outcome = self
            .send_and_receive(transport, exchange, body_error.as_ref())
            .await;
        match body_error {
            // If the request body could not be read, that error is the outcome of the exchange.
            Some(body_error) if outcome.is_err() => {
                body_error.take_body_error().map_or(outcome, Err)
            }
            _ => outcome,
        }
    }

    async fn send_and_receive<P: ResponseHeadPolicy>(
        &self,
        transport: &Transport,
        exchange: ExchangeInput<'_, P>,
        body_error_slot: Option<&BodyErrorSlot>,
    ) -> Result<Response, Error> {
        let ExchangeInput {
            request,
            mut response_head_policy,
            hop_clock,
            body_bytes_in_flight,
            sticky_connection,
            body_sink,
            body_reservation,
            announced_limits,
        } = exchange;
        let url: &Arc<Url> = request.url_if_sendable()?;
        let range_request = match body_sink {
            BodySink::File(sink) => {
                Box::pin(sink.prepare_range_request(request, url, hop_clock)).await?
            }
            BodySink::Memory | BodySink::Handler(_) => None,
        };
        let sent_request = range_request.as_deref().unwrap_or(request);
        let outgoing_request = OutgoingRequest {
            default_headers: &self.default_headers,
            request: sent_request,
            url,
            body_error_slot,
            hop_clock,
        };
        let (mut head, body) = transport
            .send_request(&outgoing_request, hop_clock, sticky_connection)
            .await?;
        if self.respect_rate_limit_headers {
            *announced_limits = AnnouncedLimits::parse_announced_limits(&head.headers);
        }
        self.default_headers
            .cookie_jar
            .store_cookies(&head.headers, url);
        let meter = BodyProgressMeter::new(body_bytes_in_flight, request.body_progress());
        let mut reader = BodyReader::new(body, hop_clock, sticky_connection, meter);
        if response_head_policy.decide_whether_next_hop_follows(head.status, &head.headers) {
            drain_body(&mut reader).await;
            return Ok(build_response(head, url, Bytes::new()));
        }
        let is_range_request = range_request.is_some();
        let is_streamed = body_sink.is_streamed(head.status, is_range_request);
        let max_body_size = if is_streamed {
            u64::MAX
        } else {
            self.max_body_size
        };
        let decodes_content = if is_streamed {
            request.decodes_content()
        } else {
            request.decodes_unsaved_content()
        };
        let decoder = if decodes_content.unwrap_or(self.decodes_content) {
            let body = reader.transport_body();
            Decoder::for_response(sent_request.method(), &mut head, body, max_body_size)?
        } else {
            None
        };
        // The futures of streamed bodies are boxed, so that they do not enlarge the future of
        // `send_and_receive`.
        match body_sink {
            BodySink::File(sink) if is_streamed => {
                let body = DecodedBody::new(reader, decoder);
                let save = sink.save_body(request, url, &mut head, is_range_request, body);
                let saved_file = Box::pin(save).await?;
                let mut response = build_response(head, url, Bytes::new());
                response.set_saved_file(saved_file);
                Ok(response)
            }
            BodySink::Handler(sink) => {
                let response = build_response(head, url, Bytes::new());
                let body = DecodedBody::new(reader, decoder);
                Box::pin(run_handler_or_drain_body(
                    response,
                    body,
                    sink,
                    response_head_policy,
                ))
                .await
            }
            sink @ (BodySink::File(_) | BodySink::Memory) => {
                if let BodySink::File(sink) = sink {
                    Box::pin(sink.discard_part_on_404_or_410(head.status)).await;
                }
                let pool = &self.buffer_pool;
                let body = read_into_memory(reader, decoder, body_reservation, max_body_size, pool)
                    .await?;
                Ok(build_response(head, url, body))
            }
        }
    }
}

/// Lets the handler read the body. If the head policy does not start the handler, the body is
/// discarded.
async fn run_handler_or_drain_body<P: ResponseHeadPolicy>(
    response: Response,
    body: DecodedBody<'_>,
    sink: &mut HandlerSink,
    mut response_head_policy: P,
) -> Result<Response, Error> {
    let outcome = Ok(response);
    let starts_handler = response_head_policy.decide_whether_handler_starts(&outcome)?;
    let response = outcome?;
    if starts_handler {
        let mut response_with_history = response.clone();
        response_head_policy.add_history_to_response(&mut response_with_history);
        sink.run_handler(response_with_history, body).await?;
    } else {
        drain_body(&mut body.into_encoded_reader()).await;
    }
    Ok(response)
}

fn build_response(head: Parts, url: &Arc<Url>, body: Bytes) -> Response {
    let url = Arc::clone(url);
    let response = Response::new(head.status, head.version, &head.headers, url, body);
    spare_header_map::keep_spare_map(head.headers);
    response
}

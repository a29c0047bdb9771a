//! Where an exchange takes place: on the wire, or in a service that a test put there.

use std::error::Error as StdError;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use http::header::{HeaderValue, TRANSFER_ENCODING};
use http_body::Body as HttpBody;
use tokio::task::coop::consume_budget;
use tokio::time::Instant;
use url::Url;

use super::request_headers::{DefaultHeaders, TargetForm};
use crate::attempt_clock::AttemptClock;
use crate::body::{Body, ErrorSlot};
use crate::error::{Error, ErrorKind};
use crate::proxy::ProxyChoice;
use crate::request::Request;
use crate::request::origin;
use crate::response_body::{ServiceBody, TransportBody, service_error};
use crate::wire::{self, ConnectionSource, StickyConnection, Target, UnsentRequest, Wire};

pub(crate) enum Transport {
    Wire(Box<Wire>),
    Service(TransportService),
}

impl Transport {
    /// Whether it is not known yet if one connection would do for many requests to this origin; to requests without a
    /// proxy of their own.
    pub(crate) fn is_protocol_unknown(&self, url: &Url) -> bool {
        match self {
            Transport::Wire(wire) => target(wire, &ProxyChoice::Default, url)
                .is_ok_and(|target| wire.is_protocol_unknown(&target)),
            Transport::Service(_) => false,
        }
    }

    /// How many connections are open, and how many of them at rest.
    pub(crate) fn connection_counts(&self) -> (usize, usize) {
        match self {
            Transport::Wire(wire) => wire.connection_counts(),
            Transport::Service(_) => (0, 0),
        }
    }

    /// Answers when the head of the response is complete.
    pub(super) async fn send(
        &self,
        default_headers: &DefaultHeaders,
        request: &Request,
        url: &Url,
        body_error: Option<&ErrorSlot>,
        clock: &AttemptClock,
        sticky: &mut StickyConnection,
    ) -> Result<(http::response::Parts, TransportBody), Error> {
        match self {
            Transport::Wire(wire) => {
                send_on_wire(
                    wire,
                    default_headers,
                    request,
                    url,
                    body_error,
                    clock,
                    sticky,
                )
                .await
            }
            Transport::Service(service) => {
                // A service that is always ready must not keep its worker from giving way.
                consume_budget().await;
                let body = request.body().open(body_error).await?;
                let mut unsent = http::Request::new(body);
                default_headers.apply(request, url, TargetForm::Absolute, &mut unsent)?;
                let (head, body) = (service.0)(unsent, clock).await?.into_parts();
                clock.record_head(Instant::now());
                Ok((head, TransportBody::Service(body)))
            }
        }
    }
}

/// How often a request is sent again because servers go away from it. One that ends its connections early turns away
/// all but the first few of what is under way at once, then all but the next few.
const MAX_GOAWAY_REPLAYS: u32 = 8;

/// A reused connection that closes without a byte of an answer was max_replays likely closed by an idle server as the request
/// went out. So the request goes once more, on a fresh connection, if it was never written or may be repeated
/// (RFC 9112 §9.3.1). So does a request that the server says it has not looked at (RFC 9113 §8.7), and more than once
/// where the server goes away (§6.8). It is the same attempt.
async fn send_on_wire(
    wire: &Wire,
    default_headers: &DefaultHeaders,
    request: &Request,
    url: &Url,
    body_error: Option<&ErrorSlot>,
    clock: &AttemptClock,
    sticky: &mut StickyConnection,
) -> Result<(http::response::Parts, TransportBody), Error> {
    let target = target(wire, request.proxy_choice(), url)?;
    let target_form = match target.uses_forward_proxy() {
        true => TargetForm::Absolute,
        false => TargetForm::Origin,
    };
    let mut unsent = None;
    fill_request_slot(
        default_headers,
        request,
        url,
        target_form,
        body_error,
        &mut unsent,
    )
    .await?;
    let mut source = ConnectionSource::Pooled;
    let mut replays = 0;
    let mut was_sent = false;
    loop {
        let result = wire.send(&target, &mut unsent, source, clock, sticky).await;
        let send_error = match result {
            Ok((head, incoming)) => return Ok((head, TransportBody::Wire(incoming))),
            Err(send_error) => send_error,
        };
        // What was not processed on this connection may have been on the one before.
        if was_sent {
            clock.record_sent();
        }
        was_sent = clock.maybe_sent();
        let max_replays = if send_error.goaway {
            MAX_GOAWAY_REPLAYS
        } else {
            1
        };
        source = match replay_connection(&send_error, unsent.is_some(), request) {
            Some(source) if replays < max_replays => source,
            _ => return Err(send_error.error),
        };
        replays += 1;
        if unsent.is_none() {
            fill_request_slot(
                default_headers,
                request,
                url,
                target_form,
                body_error,
                &mut unsent,
            )
            .await?;
        }
    }
}

/// On which connection a request that got no answer may be sent again, in the same attempt.
fn replay_connection(
    send_error: &wire::SendError,
    was_returned_unsent: bool,
    request: &Request,
) -> Option<ConnectionSource> {
    let body_is_replayable = !request.body().is_consumed();
    if send_error.unprocessed && body_is_replayable {
        return Some(ConnectionSource::Pooled);
    }
    let may_repeat = was_returned_unsent || (request.is_idempotent() && body_is_replayable);
    (send_error.on_reused_connection && send_error.no_response && may_repeat)
        .then_some(ConnectionSource::Fresh)
}

/// Puts the request into its place as it goes on the wire.
async fn fill_request_slot(
    default_headers: &DefaultHeaders,
    request: &Request,
    url: &Url,
    target_form: TargetForm,
    body_error: Option<&ErrorSlot>,
    slot: &mut UnsentRequest,
) -> Result<(), Error> {
    let body = request.body().open(body_error).await?;
    let has_length = body.len().is_some();
    let unsent = slot.insert(http::Request::new(body));
    default_headers.apply(request, url, target_form, unsent)?;
    if !has_length {
        // hyper takes a GET whose body has no length for one without a body, unless it is told.
        let chunked = HeaderValue::from_static("chunked");
        unsent.headers_mut().insert(TRANSFER_ENCODING, chunked);
    }
    Ok(())
}

fn target<'a>(
    wire: &'a Wire,
    proxy_choice: &'a ProxyChoice,
    url: &'a Url,
) -> Result<Target<'a>, Error> {
    match (url.host(), url.port_or_known_default()) {
        (Some(host), Some(port)) => Ok(Target {
            origin: origin(url),
            https: url.scheme() == "https",
            host,
            port,
            proxy: wire.proxy_for(url, proxy_choice)?,
        }),
        _ => Err(Error::from_kind(ErrorKind::InvalidRequest)
            .with_detail("the URL has no host or no port")),
    }
}

type ServiceFuture<'a> =
    Pin<Box<dyn Future<Output = Result<http::Response<ServiceBody>, Error>> + Send + 'a>>;

/// A service in this process that answers instead of the network.
///
/// Until it is ready it counts as connecting; once it is called the request counts as sent, unless it fails in a way that
/// says the contrary.
pub(crate) struct TransportService(Box<ServiceFn>);

type ServiceFn =
    dyn for<'a> Fn(http::Request<Body>, &'a AttemptClock) -> ServiceFuture<'a> + Send + Sync;

impl TransportService {
    pub(crate) fn new<S, B>(service: S) -> Self
    where
        S: tower_service::Service<http::Request<Body>, Response = http::Response<B>>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
        S::Error: Into<Box<dyn StdError + Send + Sync>>,
        B: HttpBody + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        // Each call gets a clone, and the clone is awaited ready, as tower's contract has it.
        let service = Mutex::new(service);
        Self(Box::new(move |request, clock| {
            let mut service = service
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            Box::pin(async move {
                poll_fn(|cx| service.poll_ready(cx))
                    .await
                    .map_err(service_error)?;
                clock.record_connected(Instant::now());
                clock.record_sent();
                match service.call(request).await {
                    Ok(response) => Ok(response.map(ServiceBody::new)),
                    Err(error) => {
                        let error = service_error(error);
                        if !error.maybe_sent() {
                            clock.reset(clock.started_at());
                        }
                        Err(error)
                    }
                }
            })
        }))
    }
}

//! Where an exchange takes place: on the wire, or in a service that a test put there.

use std::error::Error as StdError;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::header::{HeaderValue, TRANSFER_ENCODING};
use http_body::Body as HttpBody;
use http_body::Frame;
use tokio::task::coop::consume_budget;
use tokio::time::Instant;
use url::Url;

use super::head::{Form, Heads};
use crate::body::{Body, Failure};
use crate::proxy::Via;
use crate::request::origin;
use crate::wire::{self, Outgoing, Progress, Reuse, Target, Wire};
use crate::{Error, ErrorKind, Request};

pub(crate) enum Transport {
    Wire(Box<Wire>),
    Service(Service),
}

/// What reads one answer's body.
pub(super) enum Incoming {
    Wire(wire::Incoming),
    Service(ServiceBody),
}

impl Transport {
    /// Whether it is not known yet if one connection would do for many requests to this origin; to requests without a
    /// proxy of their own.
    pub(crate) fn is_unknown(&self, url: &Url) -> bool {
        match self {
            Transport::Wire(wire) => {
                target(wire, &Via::AsFetcher, url).is_ok_and(|target| wire.is_unknown(&target))
            }
            Transport::Service(_) => false,
        }
    }

    /// How many connections are open, and how many of them at rest.
    pub(crate) fn connections(&self) -> (usize, usize) {
        match self {
            Transport::Wire(wire) => wire.connections(),
            Transport::Service(_) => (0, 0),
        }
    }

    /// Answers when the head of the response is complete.
    pub(super) async fn send(
        &self,
        heads: &Heads,
        request: &Request,
        url: &Url,
        failure: Option<&Failure>,
        progress: &Progress,
    ) -> Result<(http::response::Parts, Incoming), Error> {
        match self {
            Transport::Wire(wire) => {
                send_on_wire(wire, heads, request, url, failure, progress).await
            }
            Transport::Service(service) => {
                // A service that is always ready must not keep its worker from giving way.
                consume_budget().await;
                let body = request.content().open(failure).await?;
                let mut outgoing = http::Request::new(body);
                heads.put_on(request, url, Form::Absolute, &mut outgoing)?;
                let (head, body) = (service.0)(outgoing, progress).await?.into_parts();
                progress.head(Instant::now());
                Ok((head, Incoming::Service(body)))
            }
        }
    }
}

/// How often a request is sent again because servers go away from it. One that ends its connections early turns away
/// all but the first few of what is under way at once, then all but the next few.
const TURNED_AWAY: u32 = 8;

/// A reused connection that closes without a byte of an answer was most likely closed by an idle server as the request
/// went out. So the request goes once more, on a fresh connection, if it was never written or may be repeated
/// (RFC 9112 §9.3.1). So does a request that the server says it has not looked at (RFC 9113 §8.7), and more than once
/// where the server goes away (§6.8). It is the same attempt.
async fn send_on_wire(
    wire: &Wire,
    heads: &Heads,
    request: &Request,
    url: &Url,
    failure: Option<&Failure>,
    progress: &Progress,
) -> Result<(http::response::Parts, Incoming), Error> {
    let target = target(wire, request.via(), url)?;
    let form = match target.is_forwarded() {
        true => Form::Absolute,
        false => Form::Origin,
    };
    let mut outgoing = None;
    on_wire(heads, request, url, form, failure, &mut outgoing).await?;
    let mut reuse = Reuse::Pooled;
    let mut replays = 0;
    let mut was_sent = false;
    loop {
        let sent = wire.send(&target, &mut outgoing, reuse, progress).await;
        let lost = match sent {
            Ok((head, incoming)) => return Ok((head, Incoming::Wire(incoming))),
            Err(lost) => lost,
        };
        // What was not processed on this connection may have been on the one before.
        if was_sent {
            progress.sent();
        }
        was_sent = progress.is_sent();
        let most = if lost.goes_away { TURNED_AWAY } else { 1 };
        reuse = match replay(&lost, outgoing.is_some(), request) {
            Some(reuse) if replays < most => reuse,
            _ => return Err(lost.error),
        };
        replays += 1;
        if outgoing.is_none() {
            on_wire(heads, request, url, form, failure, &mut outgoing).await?;
        }
    }
}

/// On which connection a request that got no answer may be sent again, in the same attempt.
fn replay(lost: &wire::Failure, is_back: bool, request: &Request) -> Option<Reuse> {
    let is_whole = !request.content().is_spent();
    if lost.unprocessed && is_whole {
        return Some(Reuse::Pooled);
    }
    let may_repeat = is_back || (request.is_repeatable() && is_whole);
    (lost.reused && lost.unanswered && may_repeat).then_some(Reuse::Fresh)
}

/// Puts the request into its place as it goes on the wire.
async fn on_wire(
    heads: &Heads,
    request: &Request,
    url: &Url,
    form: Form,
    failure: Option<&Failure>,
    slot: &mut Outgoing,
) -> Result<(), Error> {
    let body = request.content().open(failure).await?;
    let has_length = body.len().is_some();
    let outgoing = slot.insert(http::Request::new(body));
    heads.put_on(request, url, form, outgoing)?;
    if !has_length {
        // hyper takes a GET whose body has no length for one without a body, unless it is told.
        let chunked = HeaderValue::from_static("chunked");
        outgoing.headers_mut().insert(TRANSFER_ENCODING, chunked);
    }
    Ok(())
}

fn target<'a>(wire: &'a Wire, via: &'a Via, url: &'a Url) -> Result<Target<'a>, Error> {
    match (url.host(), url.port_or_known_default()) {
        (Some(host), Some(port)) => Ok(Target {
            origin: origin(url),
            https: url.scheme() == "https",
            host,
            port,
            proxy: wire.proxy_for(url, via)?,
        }),
        _ => Err(Error::of(ErrorKind::InvalidRequest).because("the URL has no host or no port")),
    }
}

impl Incoming {
    pub(super) fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        progress: &Progress,
    ) -> Poll<Option<Result<Bytes, Error>>> {
        match self {
            Incoming::Wire(incoming) => incoming.poll_chunk(cx, progress),
            Incoming::Service(body) => {
                let chunk = ready!(body.poll_chunk(cx));
                progress.touched(Instant::now());
                Poll::Ready(chunk)
            }
        }
    }

    pub(super) fn exact_length(&self) -> Option<u64> {
        match self {
            Incoming::Wire(incoming) => incoming.length(),
            Incoming::Service(body) => body.0.size_hint().exact(),
        }
    }
}

type Call<'a> =
    Pin<Box<dyn Future<Output = Result<http::Response<ServiceBody>, Error>> + Send + 'a>>;

/// A service in this process that answers instead of the network.
///
/// Until it is ready it counts as connecting; once it is called the request counts as sent, unless it fails in a way that
/// says the contrary.
pub(crate) struct Service(Box<Caller>);

type Caller = dyn for<'a> Fn(http::Request<Body>, &'a Progress) -> Call<'a> + Send + Sync;

impl Service {
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
        Self(Box::new(move |request, progress| {
            let mut service = service
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            Box::pin(async move {
                poll_fn(|cx| service.poll_ready(cx))
                    .await
                    .map_err(classify)?;
                progress.connected(Instant::now());
                progress.sent();
                match service.call(request).await {
                    Ok(response) => Ok(response.map(ServiceBody::new)),
                    Err(error) => {
                        let error = classify(error);
                        if !error.maybe_sent() {
                            progress.reset(progress.started_at());
                        }
                        Err(error)
                    }
                }
            })
        }))
    }
}

/// A body of any type, as bytes.
pub(super) struct ServiceBody(Pin<Box<dyn HttpBody<Data = Bytes, Error = Error> + Send>>);

impl ServiceBody {
    fn new<B>(body: B) -> Self
    where
        B: HttpBody + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        Self(Box::pin(Adapted(Box::pin(body))))
    }

    /// The next piece of data; trailers are passed over.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        loop {
            match ready!(self.0.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => return Poll::Ready(Some(Ok(data))),
                    Err(_trailers) => {}
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

struct Adapted<B>(Pin<Box<B>>);

impl<B> HttpBody for Adapted<B>
where
    B: HttpBody,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.0.as_mut().poll_frame(cx).map(|frame| {
            frame.map(|frame| {
                frame
                    .map_err(classify)
                    .map(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())))
            })
        })
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.0.size_hint()
    }
}

/// A service may fail with this crate's own [`Error`], to stand for a fault of the network; anything else is its own.
fn classify(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
    match error.into().downcast::<Error>() {
        Ok(error) => *error,
        Err(other) => Error::new(ErrorKind::Transport, other),
    }
}

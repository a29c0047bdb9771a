//! Where an exchange takes place: on the wire, or in a service that a test put there.

use std::error::Error as StdError;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use bytes::{Buf, Bytes};
use http_body::Body as HttpBody;
use http_body::Frame;
use tokio::time::Instant;
use url::Url;

use super::head::{Form, Heads};
use crate::body::Body;
use crate::request::origin;
use crate::wire::{self, Progress, Reuse, Target, Wire};
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
    /// Whether it is not known yet if one connection would do for many requests to this origin.
    pub(crate) fn is_unknown(&self, url: &Url) -> bool {
        match self {
            Transport::Wire(wire) => on_wire(url).is_ok_and(|target| wire.is_unknown(&target)),
            Transport::Service(_) => false,
        }
    }

    /// Answers when the head of the response is complete.
    pub(super) async fn send(
        &self,
        heads: &Heads,
        request: &Request,
        url: &Url,
        progress: &Progress,
    ) -> Result<(http::response::Parts, Incoming), Error> {
        match self {
            Transport::Wire(wire) => send_on_wire(wire, heads, request, url, progress).await,
            Transport::Service(service) => {
                let outgoing = heads.outgoing(request, url, Form::Absolute)?;
                let (head, body) = (service.0)(outgoing, progress).await?.into_parts();
                progress.head(Instant::now());
                Ok((head, Incoming::Service(body)))
            }
        }
    }
}

/// A reused connection that closes without a byte of an answer was most likely closed by an idle server as the request
/// went out. So the request goes once more, on a fresh connection, if it was never written or may be repeated
/// (RFC 9112 §9.3.1). So does a request that the server says it has not looked at (RFC 9113 §8.7). It is the same
/// attempt.
async fn send_on_wire(
    wire: &Wire,
    heads: &Heads,
    request: &Request,
    url: &Url,
    progress: &Progress,
) -> Result<(http::response::Parts, Incoming), Error> {
    let outgoing = heads.outgoing(request, url, Form::Origin)?;
    let failure = match wire
        .send(on_wire(url)?, outgoing, Reuse::Pooled, progress)
        .await
    {
        Ok((head, incoming)) => return Ok((head, Incoming::Wire(incoming))),
        Err(failure) => failure,
    };
    let may_replay = failure.reused
        && failure.unanswered
        && (failure.request.is_some() || request.is_repeatable());
    let reuse = match failure.unprocessed {
        true => Reuse::Pooled,
        false if may_replay => Reuse::Fresh,
        false => return Err(failure.error),
    };
    let again = match failure.request {
        Some(never_written) => never_written,
        None => heads.outgoing(request, url, Form::Origin)?,
    };
    match wire.send(on_wire(url)?, again, reuse, progress).await {
        Ok((head, incoming)) => Ok((head, Incoming::Wire(incoming))),
        Err(failure) => Err(failure.error),
    }
}

fn on_wire(url: &Url) -> Result<Target<'_>, Error> {
    match (url.host(), url.port_or_known_default()) {
        (Some(host), Some(port)) => Ok(Target {
            origin: origin(url),
            https: url.scheme() == "https",
            host,
            port,
        }),
        _ => Err(Error::of(ErrorKind::InvalidRequest).because("the URL has no host or no port")),
    }
}

impl Incoming {
    pub(super) async fn chunk(&mut self, progress: &Progress) -> Option<Result<Bytes, Error>> {
        match self {
            Incoming::Wire(incoming) => incoming.chunk(progress).await,
            Incoming::Service(body) => {
                let chunk = body.chunk().await;
                progress.touched(Instant::now());
                chunk
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
    async fn chunk(&mut self) -> Option<Result<Bytes, Error>> {
        loop {
            match poll_fn(|cx| self.0.as_mut().poll_frame(cx)).await? {
                Ok(frame) => match frame.into_data() {
                    Ok(data) => return Some(Ok(data)),
                    Err(_trailers) => {}
                },
                Err(error) => return Some(Err(error)),
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
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Error>>> {
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

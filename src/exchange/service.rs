//! A transport that calls a tower service in this process instead of the network.

use std::error::Error as StdError;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use http::response::Parts;
use http_body::Body as HttpBody;
use tokio::time::Instant;

use crate::body::Body;
use crate::error::Error;
use crate::hop_clock::HopClock;
use crate::response_body::{ServiceBody, TransportBody, service_error};

type ServiceFuture<'a> =
    Pin<Box<dyn Future<Output = Result<http::Response<ServiceBody>, Error>> + Send + 'a>>;

type ServiceFn =
    dyn for<'a> Fn(http::Request<Body>, &'a HopClock) -> ServiceFuture<'a> + Send + Sync;

/// A tower service whose type is erased.
///
/// The time until the service is ready counts as connect time. The request counts as sent when the
/// service is called. If the service returns an [`Error`] for which [`Error::maybe_sent`] is false,
/// the request counts as not sent.
pub(crate) struct TransportService(Box<ServiceFn>);

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
        // tower requires a call on the same instance that was polled until ready, so each call
        // clones the service.
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
                clock.record_maybe_sent();
                match service.call(request).await {
                    Ok(response) => Ok(response.map(ServiceBody::new)),
                    Err(error) => {
                        let error = service_error(error);
                        if !error.maybe_sent() {
                            clock.reset_for_new_hop(clock.hop_started_at());
                        }
                        Err(error)
                    }
                }
            })
        }))
    }

    /// Calls the service and waits for the head of the response.
    pub(super) async fn call_service(
        &self,
        request: http::Request<Body>,
        clock: &HopClock,
    ) -> Result<(Parts, TransportBody), Error> {
        let (head, body) = (self.0)(request, clock).await?.into_parts();
        clock.record_response_head(Instant::now());
        Ok((head, TransportBody::Service(body)))
    }
}

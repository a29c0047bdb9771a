//! The transport of requests: the network, or a service in this process.

use http::header::{HeaderValue, TRANSFER_ENCODING};
use http::response::Parts;
use tokio::task::coop::consume_budget;
use url::Url;

use super::request_headers::{DefaultHeaders, TargetForm};
use super::service::TransportService;
use super::wire_transport;
use crate::attempt_clock::AttemptClock;
use crate::body::{Body, ErrorSlot};
use crate::error::Error;
use crate::request::Request;
use crate::response_body::TransportBody;
use crate::wire::{StickyConnection, UnsentRequest, Wire};

/// Sends requests, and receives the heads of responses.
pub(crate) enum Transport {
    Wire(Box<Wire>),
    Service(TransportService),
}

impl Transport {
    /// Whether the HTTP version of an origin is still unknown, so that a first request should find
    /// out the version before other requests open connections. A proxy choice of a single request
    /// is ignored.
    pub(crate) fn is_protocol_unknown(&self, url: &Url) -> bool {
        match self {
            Transport::Wire(wire) => wire_transport::is_protocol_unknown(wire, url),
            Transport::Service(_) => false,
        }
    }

    /// The number of open connections, and the number of idle ones among them.
    pub(crate) fn connection_counts(&self) -> (usize, usize) {
        match self {
            Transport::Wire(wire) => wire.connection_counts(),
            Transport::Service(_) => (0, 0),
        }
    }

    /// Sends a request and waits for the head of the response.
    pub(super) async fn send(
        &self,
        outgoing_request: &OutgoingRequest<'_>,
        clock: &AttemptClock,
        sticky_connection: &mut StickyConnection,
    ) -> Result<(Parts, TransportBody), Error> {
        match self {
            Transport::Wire(wire) => {
                wire_transport::send(wire, outgoing_request, clock, sticky_connection).await
            }
            Transport::Service(service) => {
                // A service that is always ready must not starve other tasks of the runtime.
                consume_budget().await;
                let request = outgoing_request.build(TargetForm::Absolute).await?;
                service.call(request, clock).await
            }
        }
    }
}

/// A request with everything that is needed to send it, once or several times.
pub(super) struct OutgoingRequest<'a> {
    pub(super) default_headers: &'a DefaultHeaders,
    pub(super) request: &'a Request,
    pub(super) url: &'a Url,
    /// Set to the error of the request body, if the body fails.
    pub(super) body_error: Option<&'a ErrorSlot>,
}

impl OutgoingRequest<'_> {
    /// Builds the HTTP request with a newly opened body.
    async fn build(&self, target_form: TargetForm) -> Result<http::Request<Body>, Error> {
        let body = self.request.body().open(self.body_error).await?;
        let mut request = http::Request::new(body);
        self.default_headers
            .apply(self.request, self.url, target_form, &mut request)?;
        Ok(request)
    }

    /// Builds the HTTP request with a newly opened body in `slot`, from which the wire sends the
    /// request.
    pub(super) async fn fill_slot(
        &self,
        target_form: TargetForm,
        slot: &mut UnsentRequest,
    ) -> Result<(), Error> {
        let body = self.request.body().open(self.body_error).await?;
        let has_length = body.len().is_some();
        let unsent = slot.insert(http::Request::new(body));
        self.default_headers
            .apply(self.request, self.url, target_form, unsent)?;
        if !has_length {
            // Without `Transfer-Encoding`, hyper sends no body of unknown length with a GET.
            let chunked = HeaderValue::from_static("chunked");
            unsent.headers_mut().insert(TRANSFER_ENCODING, chunked);
        }
        Ok(())
    }
}

//! The transport of requests: the network, or a service in this process.

use http::response::Parts;
use tokio::task::coop::consume_budget;
use url::Url;

use super::outgoing_request::OutgoingRequest;
use super::request_headers::RequestTargetForm;
use super::service::TransportService;
use super::wire_transport;
use crate::error::Error;
use crate::hop_clock::HopClock;
use crate::proxy::Proxy;
use crate::request::Request;
use crate::response_body::TransportBody;
use crate::wire::{PendingLookup, StickyConnection, Wire};

/// Sends requests, and receives the heads of responses.
pub(crate) enum Transport {
    Wire(Box<Wire>),
    Service(TransportService),
}

impl Transport {
    /// Whether the HTTP version of an origin is unknown. A first request should then determine the
    /// version before other requests open connections.
    pub(crate) fn is_origin_protocol_unknown(&self, url: &Url, proxy: Option<&Proxy>) -> bool {
        match self {
            Transport::Wire(wire) => wire_transport::is_origin_protocol_unknown(wire, url, proxy),
            Transport::Service(_) => false,
        }
    }

    /// Returns the proxy of a request. Returns `None` if the request uses no proxy, or if no proxy
    /// can be selected.
    pub(crate) fn proxy_for(&self, url: &Url, request: &Request) -> Option<Proxy> {
        match self {
            Transport::Wire(wire) => wire.proxy_for(url, request.proxy_choice()).ok()?.cloned(),
            Transport::Service(_) => None,
        }
    }

    /// Returns the name lookup of a request if the lookup must wait for a permit. The request
    /// should not hold a slot during this wait.
    pub(crate) fn name_lookup_awaiting_permit(&self, request: &Request) -> Option<PendingLookup> {
        match self {
            Transport::Wire(wire) => wire_transport::name_lookup_awaiting_permit(wire, request),
            Transport::Service(_) => None,
        }
    }

    /// The number of open connections, and the number of idle ones among them.
    pub(crate) fn open_and_idle_connection_counts(&self) -> (usize, usize) {
        match self {
            Transport::Wire(wire) => wire.connection_counts(),
            Transport::Service(_) => (0, 0),
        }
    }

    /// Sends a request and waits for the head of the response.
    pub(super) async fn send_request(
        &self,
        outgoing_request: &OutgoingRequest<'_>,
        clock: &HopClock,
        sticky_connection: &mut StickyConnection,
    ) -> Result<(Parts, TransportBody), Error> {
        match self {
            Transport::Wire(wire) => {
                wire_transport::send_request(wire, outgoing_request, clock, sticky_connection).await
            }
            Transport::Service(service) => {
                // A service that is always ready must not starve other tasks of the runtime.
                consume_budget().await;
                let request = outgoing_request
                    .build(RequestTargetForm::AbsoluteForm)
                    .await?;
                service.call_service(request, clock).await
            }
        }
    }
}

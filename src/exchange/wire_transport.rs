//! Sends requests over the network. Sends a request again (replays it) if a closing connection has
//! lost it.

use http::response::Parts;
use url::Url;

use super::outgoing_request::OutgoingRequest;
use super::request_headers::RequestTargetForm;
use crate::error::{Error, ErrorKind};
use crate::hop_clock::HopClock;
use crate::proxy::Proxy;
use crate::request::{Request, origin};
use crate::response_body::TransportBody;
use crate::wire::{
    ConnectionSource, ConnectionTarget, PendingLookup, Refusal, RefusalReason, SendError,
    StickyConnection, Wire,
};

/// The maximum number of replays of a request that is refused by connections in shutdown (RFC 9113
/// §6.8). A server that serves only a few requests per connection refuses all other requests on it,
/// so a request may be refused several times.
const MAX_REPLAYS_AFTER_SHUTDOWN: u32 = 8;

pub(super) fn is_origin_protocol_unknown(wire: &Wire, url: &Url, proxy: Option<&Proxy>) -> bool {
    connection_target(url, proxy).is_ok_and(|target| wire.is_protocol_unknown(&target))
}

/// Returns the name lookup of a request if the lookup must wait for a permit.
pub(super) fn name_lookup_awaiting_permit(wire: &Wire, request: &Request) -> Option<PendingLookup> {
    if !wire.is_out_of_lookup_permits() {
        return None;
    }
    let url = request.url_if_sendable().ok()?;
    let proxy = wire.proxy_for(url, request.proxy_choice()).ok()?;
    let target = connection_target(url, proxy).ok()?;
    wire.lookup_awaiting_permit(&target)
}

/// Sends a request and waits for the head of the response.
///
/// If a reused connection closes before the first byte of a response, the server has most likely
/// closed the idle connection just before the request arrived. In this case the request is replayed
/// on a fresh connection, if the request was never written or is idempotent (RFC 9112 §9.3.1). A
/// request that the server reports as unprocessed is replayed too (RFC 9113 §8.7), as
/// [`ReplayLimit`] allows. A replay belongs to the same attempt.
pub(super) async fn send_request(
    wire: &Wire,
    outgoing_request: &OutgoingRequest<'_>,
    clock: &HopClock,
    sticky_connection: &mut StickyConnection,
) -> Result<(Parts, TransportBody), Error> {
    let request = outgoing_request.request;
    let proxy = wire.proxy_for(outgoing_request.url, request.proxy_choice())?;
    let target = connection_target(outgoing_request.url, proxy)?;
    let target_form = if target.uses_forward_proxy() {
        RequestTargetForm::AbsoluteForm
    } else {
        RequestTargetForm::OriginForm
    };
    let mut unsent = None;
    outgoing_request
        .build_http_request_into_slot(target_form, &mut unsent)
        .await?;
    let mut source = ConnectionSource::Pooled;
    let mut replay_limit = ReplayLimit::default();
    let mut was_sent = false;
    loop {
        let result = wire
            .send(&target, &mut unsent, source, clock, sticky_connection)
            .await;
        let send_error = match result {
            Ok((head, body)) => return Ok((head, TransportBody::Wire(body))),
            Err(send_error) => send_error,
        };
        // An earlier connection may have delivered the request to the server, even if this one did
        // not.
        if was_sent {
            clock.record_maybe_sent();
        }
        was_sent = clock.maybe_sent();
        source = match connection_source_for_replay(&send_error, unsent.is_some(), request) {
            Some(source) if replay_limit.permits_replay(&send_error) => source,
            _ => return Err(send_error.error),
        };
        replay_limit.count_replay(send_error);
        if unsent.is_none() {
            outgoing_request
                .build_http_request_into_slot(target_form, &mut unsent)
                .await?;
        }
    }
}

/// The limit on the replays of one exchange.
///
/// Rate limits, the backoff and the retry budget do not apply to replays. A server that refuses
/// every connection must therefore not cause many replays. An error that is not replayed may be
/// retried.
#[derive(Default)]
struct ReplayLimit {
    replay_count: u32,
    refusal_at_last_replay: Option<Refusal>,
}

impl ReplayLimit {
    fn permits_replay(&self, send_error: &SendError) -> bool {
        let is_first = self.replay_count == 0;
        let Some(refusal) = &send_error.refusal else {
            return is_first;
        };
        match refusal.refusal_reason {
            RefusalReason::Overload => false,
            RefusalReason::Failure => is_first && refusal.has_connection_responded(),
            // The responses of a connection in shutdown may be processed after its refusals.
            // Whether the connection has responded is therefore checked at the next refusal.
            RefusalReason::Shutdown if self.replay_count < MAX_REPLAYS_AFTER_SHUTDOWN => {
                let last = self.refusal_at_last_replay.as_ref();
                is_first || last.is_some_and(Refusal::has_connection_responded)
            }
            RefusalReason::Shutdown => false,
        }
    }

    fn count_replay(&mut self, send_error: SendError) {
        self.replay_count += 1;
        self.refusal_at_last_replay = send_error.refusal;
    }
}

/// The kind of connection for a replay; `None` if the request must not be replayed.
fn connection_source_for_replay(
    send_error: &SendError,
    was_returned_unsent: bool,
    request: &Request,
) -> Option<ConnectionSource> {
    let can_resend_body = !request.body().is_stream_already_taken();
    if send_error.unprocessed && can_resend_body {
        return Some(ConnectionSource::Pooled);
    }
    let may_replay = was_returned_unsent || (request.is_idempotent() && can_resend_body);
    (send_error.on_reused_connection && send_error.no_response && may_replay)
        .then_some(ConnectionSource::Fresh)
}

fn connection_target<'a>(
    url: &'a Url,
    proxy: Option<&'a Proxy>,
) -> Result<ConnectionTarget<'a>, Error> {
    match (url.host(), url.port_or_known_default()) {
        (Some(host), Some(port)) => Ok(ConnectionTarget {
            origin: origin(url),
            is_https: url.scheme() == "https",
            host,
            port,
            proxy: proxy.map(Proxy::server),
        }),
        _ => {
            let detail = "the URL has no host or no port";
            Err(Error::from_kind(ErrorKind::InvalidRequest).with_detail(detail))
        }
    }
}

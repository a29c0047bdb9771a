//! Sends one request on a stream and receives the head of its response.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use h2::Reason;
use h2::client::ResponseFuture;
use http::header::CONTENT_LENGTH;
use http::response::Parts;
use http::{HeaderMap, Method, StatusCode};
use http_body::Body as _;
use tokio::time::Instant;

use super::body::Http2Body;
use super::pool::{AwaitedResponseHead, StreamLease};
use super::request;
use super::upload::{Upload, poll_upload};
use crate::error::{Error, ErrorKind};
use crate::hop_clock::HopClock;
use crate::wire::response_limits::{MAX_INFORMATIONAL_RESPONSES, TOO_MANY_INFORMATIONAL_MESSAGE};
use crate::wire::send_error::{RefusalReason, SendError, UnsentRequest};

/// Sends a request on a leased stream and waits for the complete head of its response.
///
/// # Cancel safety
///
/// Dropping the future resets the stream.
pub(in crate::wire) async fn exchange(
    mut lease: StreamLease,
    unsent: &mut UnsentRequest,
    https: bool,
    clock: &HopClock,
) -> Result<(Parts, Http2Body), SendError> {
    let (Some(request), Some(mut sender)) = (unsent.take(), lease.sender.take()) else {
        return Err(SendError::not_sent(Error::from_kind(ErrorKind::Closed)));
    };
    let (head, body) = request::into_http2(request, https).map_err(SendError::not_sent)?;
    let is_empty = body.is_end_stream();
    let is_head = head.method() == Method::HEAD;
    let (mut response, stream) = match sender.send_request(head, is_empty) {
        Ok(sent) => sent,
        Err(error) => return Err(to_rejected_request_error(error, &lease)),
    };
    // The sender is dropped now, because it would keep a retired connection open during the
    // exchange.
    drop(sender);
    lease.awaited_response_head = Some(AwaitedResponseHead {
        sent_at: Instant::now(),
        bytes_read_before_sending: lease.connection_state.bytes_read(),
    });
    clock.record_maybe_sent();
    let mut upload = (!is_empty).then(|| Upload::new(body, stream));
    let mut informational = 0;
    let response = poll_fn(|cx| {
        if let Err(error) = poll_upload(&mut upload, cx, clock) {
            return Poll::Ready(Err(SendError::interrupted(error)));
        }
        informational += discard_informational_responses(&mut response, cx);
        if informational > MAX_INFORMATIONAL_RESPONSES {
            lease.retire_connection();
            return Poll::Ready(Err(SendError::protocol_violation(
                TOO_MANY_INFORMATIONAL_MESSAGE,
            )));
        }
        let response = ready!(Pin::new(&mut response).poll(cx));
        Poll::Ready(response.map_err(|error| to_send_error(error, &mut lease, clock)))
    });
    let (head, body) = response.await?.into_parts();
    lease.awaited_response_head = None;
    lease.connection_state.record_response();
    clock.record_response_head(Instant::now());
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(SendError::protocol_violation(
            "the server switched protocols",
        ));
    }
    if is_head
        || matches!(
            head.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        )
    {
        // A response to HEAD, a 204 and a 304 have no content. Frames that follow are not read,
        // because h2 would check them against a Content-Length that describes another response (RFC
        // 9113 §8.1.1).
        return Ok((head, Http2Body::empty()));
    }
    let content_length = content_length(&head.headers);
    let body = Http2Body::new(body, upload, lease, content_length);
    Ok((head, body))
}

/// Discards the informational responses (1xx) that have arrived. Stops after one more than the
/// limit. Returns the number of discarded responses.
fn discard_informational_responses(response: &mut ResponseFuture, cx: &mut Context<'_>) -> u32 {
    let mut count = 0;
    while count <= MAX_INFORMATIONAL_RESPONSES
        && let Poll::Ready(Some(Ok(_))) = response.poll_informational(cx)
    {
        count += 1;
    }
    count
}

/// Returns the value of the `Content-Length` header. h2 checks that repeated headers are equal and
/// that the body has this length.
fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Converts the error of a request that got no response.
fn to_send_error(error: h2::Error, lease: &mut StreamLease, clock: &HopClock) -> SendError {
    let connection = &lease.connection_state;
    // Taking `awaited_response_head` prevents the drop of the lease from retiring the connection as
    // unresponsive.
    let nothing_received = lease
        .awaited_response_head
        .take()
        .is_some_and(|awaiting| connection.bytes_read() == awaiting.bytes_read_before_sending);
    // A stream that fails because of a GOAWAY, or with REFUSED_STREAM, is not processed by the peer
    // (RFC 9113 §8.7).
    let has_remote_reason = |reason| error.is_remote() && error.reason() == Some(reason);
    let http1_required = has_remote_reason(Reason::HTTP_1_1_REQUIRED);
    let is_goaway = error.is_remote() && error.is_go_away();
    let unprocessed = is_goaway || http1_required || has_remote_reason(Reason::REFUSED_STREAM);
    let refusal = (unprocessed && !http1_required)
        .then(|| connection.new_refusal(refusal_reason(error.reason())));
    if http1_required {
        lease.record_http1_required();
    }
    if unprocessed {
        clock.record_request_unprocessed();
    }
    let error = match connection.local_close_reason() {
        Some((kind, reason)) => Error::new(kind, reason),
        None if connection.has_tls_read_failure() => Error::new(ErrorKind::Tls, error),
        None if error.is_library() => Error::new(ErrorKind::Protocol, error),
        None => to_closed_error(error),
    };
    SendError {
        error,
        // A connection that has not delivered a response yet counts as new.
        on_reused_connection: lease.is_connection_reused && lease.connection_state.has_responded(),
        no_response: unprocessed || nothing_received,
        unprocessed,
        refusal,
    }
}

fn refusal_reason(reason: Option<Reason>) -> RefusalReason {
    match reason {
        Some(Reason::NO_ERROR) => RefusalReason::Shutdown,
        Some(Reason::ENHANCE_YOUR_CALM) => RefusalReason::Overload,
        _ => RefusalReason::Failure,
    }
}

/// Converts the error of a closed connection. Leaves out the debug data of a GOAWAY, which can
/// contain parts of a request.
fn to_closed_error(error: h2::Error) -> Error {
    match error.reason() {
        Some(reason) if error.is_go_away() => {
            Error::new(ErrorKind::Closed, format!("the server goes away: {reason}"))
        }
        _ => Error::new(ErrorKind::Closed, error),
    }
}

/// Converts the error of a request that h2 rejected before writing any byte.
fn to_rejected_request_error(error: h2::Error, lease: &StreamLease) -> SendError {
    let is_closed = error.is_io() || error.is_go_away() || error.is_reset();
    let reason = refusal_reason(error.reason());
    let error = if is_closed {
        to_closed_error(error)
    } else {
        Error::new(ErrorKind::InvalidRequest, error)
    };
    SendError {
        unprocessed: is_closed,
        refusal: is_closed.then(|| lease.connection_state.new_refusal(reason)),
        ..SendError::not_sent(error)
    }
}

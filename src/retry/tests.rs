//! Tests of the retry decision as tables. Each row has the state of a job, the outcome of a hop,
//! and the expected decision.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Version};
use http_body_util::{BodyDataStream, BodyExt, Full};

use super::*;
use crate::body::Body;
use crate::hop_clock::HopClock;

/// The maximum of `random`, with which a backoff has its full length.
const RANDOM: f64 = 1.0;

const BASE_DELAY: Duration = Duration::from_secs(1);
const THROTTLED_BASE_DELAY: Duration = Duration::from_secs(10);

fn retry() -> Retry {
    Retry::default()
        .max_retries(2)
        .base_delay(BASE_DELAY)
        .throttled_base_delay(THROTTLED_BASE_DELAY)
        .max_delay(secs(1_000))
        .max_retry_after(secs(60))
        .max_throttled_attempts(2)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn get() -> Request {
    Request::get("http://a.example/").build()
}

fn post() -> Request {
    Request::post("http://a.example/").build()
}

fn error(kind: ErrorKind) -> Result<Response, Error> {
    Err(Error::from_kind(kind))
}

fn response(status: u16) -> Result<Response, Error> {
    response_with(status, &[])
}

fn response_with(status: u16, headers: &[(&str, &str)]) -> Result<Response, Error> {
    let headers: HeaderMap = headers
        .iter()
        .map(|(name, value)| {
            let name: HeaderName = name.parse().unwrap();
            (name, HeaderValue::from_str(value).unwrap())
        })
        .collect();
    let status = StatusCode::from_u16(status).unwrap();
    let url = Arc::new("http://a.example/".parse().unwrap());
    Ok(Response::new(
        status,
        Version::HTTP_11,
        &headers,
        url,
        Bytes::new(),
    ))
}

/// The context of a first attempt whose request was sent.
fn context<'a>(request: &'a Request, retry: &'a Retry) -> HopContext<'a> {
    HopContext {
        request,
        retry_policy: retry,
        follows_redirects: true,
        respect_rate_limit_headers: true,
        can_renew_token: false,
        has_handler_started: false,
        maybe_sent: true,
        charged_retry_count: 0,
        uncharged_retry_count: 0,
        final_round_state: FinalRoundState::NoFinalRound,
    }
}

const DONE: HopDecision = HopDecision::DELIVER;

fn charged(backoff: Duration) -> HopDecision {
    HopDecision {
        next_step: NextStep::Retry(backoff),
        host_pause: None,
        is_charged_retry: true,
    }
}

fn uncharged(backoff: Duration) -> HopDecision {
    HopDecision {
        is_charged_retry: false,
        ..charged(backoff)
    }
}

fn paused(pause: Duration, decision: HopDecision) -> HopDecision {
    HopDecision {
        host_pause: Some(pause),
        ..decision
    }
}

fn step(next_step: NextStep) -> HopDecision {
    HopDecision { next_step, ..DONE }
}

#[test]
fn outcome_of_a_first_attempt_decides() {
    let (get, post, retry) = (get(), post(), retry());
    let sent = context(&get, &retry);
    let unsent = HopContext {
        maybe_sent: false,
        ..sent
    };
    let post_sent = context(&post, &retry);
    let post_unsent = HopContext {
        maybe_sent: false,
        ..post_sent
    };
    let base = charged(BASE_DELAY);
    let overloaded = charged(THROTTLED_BASE_DELAY);
    let throttled = uncharged(THROTTLED_BASE_DELAY);
    for (row, context, outcome, expected) in [
        // Responses.
        ("200", sent, response(200), DONE),
        ("304", sent, response(304), DONE),
        ("400", sent, response(400), DONE),
        ("401", sent, response(401), DONE),
        ("404", sent, response(404), DONE),
        ("408", sent, response(408), base),
        ("425", sent, response(425), base),
        ("429", sent, response(429), throttled),
        ("500", sent, response(500), base),
        ("501", sent, response(501), DONE),
        ("502", sent, response(502), base),
        ("503", sent, response(503), overloaded),
        ("504", sent, response(504), base),
        // A POST is not repeated if the server may have processed it.
        ("POST 408", post_sent, response(408), DONE),
        ("POST 500", post_sent, response(500), DONE),
        ("POST 502", post_sent, response(502), DONE),
        ("POST 503", post_sent, response(503), DONE),
        ("POST 504", post_sent, response(504), DONE),
        ("POST 425", post_sent, response(425), base),
        ("POST 429", post_sent, response(429), throttled),
        // Errors.
        ("Connect", unsent, error(ErrorKind::Connect), base),
        ("Closed", sent, error(ErrorKind::Closed), base),
        ("Reset", sent, error(ErrorKind::Reset), base),
        ("Truncated", sent, error(ErrorKind::Truncated), base),
        (
            "ResponseHeadTimeout",
            sent,
            error(ErrorKind::ResponseHeadTimeout),
            base,
        ),
        ("POST unsent", post_unsent, error(ErrorKind::Connect), base),
        ("POST sent", post_sent, error(ErrorKind::Closed), DONE),
        ("BodyTooLarge", sent, error(ErrorKind::BodyTooLarge), DONE),
        ("Protocol", sent, error(ErrorKind::Protocol), DONE),
        ("Redirect", sent, error(ErrorKind::Redirect), DONE),
        (
            "InvalidRequest",
            unsent,
            error(ErrorKind::InvalidRequest),
            DONE,
        ),
        ("Cancelled", sent, error(ErrorKind::Cancelled), DONE),
        ("Deadline", sent, error(ErrorKind::Deadline), DONE),
        ("TotalTimeout", sent, error(ErrorKind::TotalTimeout), DONE),
        ("Panicked", sent, error(ErrorKind::Panicked), DONE),
    ] {
        let decision = context.decide_next_step(&outcome, RANDOM).unwrap();
        assert_eq!(decision, expected, "{row}");
    }
}

#[test]
fn retry_after_delays_next_attempt_and_pauses_host() {
    let (get, retry) = (get(), retry());
    let context = context(&get, &retry);
    let after = |status, seconds: &str| response_with(status, &[("retry-after", seconds)]);
    for (row, outcome, expected) in [
        (
            "longer than the backoff",
            after(503, "30"),
            paused(secs(30), uncharged(secs(30))),
        ),
        (
            "shorter than the backoff",
            after(503, "3"),
            paused(secs(3), uncharged(THROTTLED_BASE_DELAY)),
        ),
        (
            "429",
            after(429, "30"),
            paused(secs(30), uncharged(secs(30))),
        ),
        ("500", after(500, "30"), paused(secs(30), charged(secs(30)))),
        ("408", after(408, "30"), paused(secs(30), charged(secs(30)))),
        (
            "501 is not retried",
            after(501, "30"),
            paused(secs(30), DONE),
        ),
        ("404 ignores it", after(404, "30"), DONE),
        (
            "at the maximum",
            after(503, "60"),
            paused(secs(60), uncharged(secs(60))),
        ),
        ("above the maximum", after(503, "61"), DONE),
    ] {
        let decision = context.decide_next_step(&outcome, RANDOM).unwrap();
        assert_eq!(decision, expected, "{row}");
    }
}

#[test]
fn post_is_retried_after_a_status_that_says_it_was_not_processed() {
    let (post, retry) = (post(), retry());
    let off = retry.clone().retry_unprocessed_posts(false);
    let after = |status, seconds: &str| response_with(status, &[("retry-after", seconds)]);
    let on = context(&post, &retry);
    let off = context(&post, &off);
    let thirty = secs(30);
    for (row, context, outcome, expected) in [
        (
            "429",
            on,
            after(429, "30"),
            paused(thirty, uncharged(thirty)),
        ),
        (
            "503",
            on,
            after(503, "30"),
            paused(thirty, uncharged(thirty)),
        ),
        ("unreadable", on, after(503, "soon"), DONE),
        ("500", on, after(500, "30"), paused(thirty, DONE)),
        ("above the maximum", on, after(429, "61"), DONE),
        ("off, 429", off, after(429, "30"), paused(thirty, DONE)),
        ("off, 503", off, after(503, "30"), paused(thirty, DONE)),
        ("off, 425", off, response(425), DONE),
    ] {
        let decision = context.decide_next_step(&outcome, RANDOM).unwrap();
        assert_eq!(decision, expected, "{row}");
    }
}

/// openai-python and anthropic-sdk-python, `_should_retry` in `_base_client.py`: the header
/// precedes the status, and a delay above the maximum precedes the header.
#[test]
fn x_should_retry_precedes_status_and_method() {
    let (get, post, retry) = (get(), post(), retry());
    let off = Retry::off();
    let get_sent = context(&get, &retry);
    let post_sent = context(&post, &retry);
    let without_retries = HopContext {
        retry_policy: &off,
        ..post_sent
    };
    let exhausted = HopContext {
        charged_retry_count: 2,
        ..post_sent
    };
    let hint = |status, value: &str| response_with(status, &[("x-should-retry", value)]);
    let hint_after = |status, value: &str, seconds: &str| {
        response_with(
            status,
            &[("x-should-retry", value), ("retry-after", seconds)],
        )
    };
    let base = charged(BASE_DELAY);
    let throttled = uncharged(THROTTLED_BASE_DELAY);
    for (row, context, outcome, expected) in [
        ("true, 400", get_sent, hint(400, "true"), base),
        ("true, POST 409", post_sent, hint(409, "true"), base),
        ("true, POST 500", post_sent, hint(500, "true"), base),
        ("true, POST 529", post_sent, hint(529, "true"), base),
        ("true, POST 429", post_sent, hint(429, "true"), throttled),
        ("false, 500", get_sent, hint(500, "false"), DONE),
        ("false, 429", get_sent, hint(429, "false"), DONE),
        ("false, 400", get_sent, hint(400, "false"), DONE),
        ("upper case", get_sent, hint(500, " False "), DONE),
        ("other value, 500", get_sent, hint(500, "1"), base),
        ("other value, 400", get_sent, hint(400, "yes"), DONE),
        ("empty value", get_sent, hint(400, ""), DONE),
        ("true, 200", get_sent, hint(200, "true"), DONE),
        ("no retries", without_retries, hint(500, "true"), DONE),
        ("no retries left", exhausted, hint(500, "true"), DONE),
        (
            "true with a delay, 409",
            post_sent,
            hint_after(409, "true", "30"),
            paused(secs(30), charged(secs(30))),
        ),
        (
            "true with a delay above the maximum",
            get_sent,
            hint_after(500, "true", "61"),
            DONE,
        ),
        (
            "false with a delay",
            get_sent,
            hint_after(429, "false", "30"),
            paused(secs(30), DONE),
        ),
    ] {
        let decision = context.decide_next_step(&outcome, RANDOM).unwrap();
        assert_eq!(decision, expected, "{row}");
    }
}

#[test]
fn classify_overrides_x_should_retry() {
    let get = get();
    for (value, expected) in [
        ("true", RetryDecision::Retry),
        ("false", RetryDecision::Done),
    ] {
        let reverse = retry().classify(move |_, decision| {
            assert_eq!(decision, expected);
            if decision == RetryDecision::Retry {
                RetryDecision::Done
            } else {
                RetryDecision::Retry
            }
        });
        let outcome = response_with(500, &[("x-should-retry", value)]);
        let decision = context(&get, &reverse).decide_next_step(&outcome, RANDOM);
        let is_retried = decision.unwrap().starts_another_attempt();
        assert_eq!(is_retried, expected == RetryDecision::Done);
    }
}

#[test]
fn retry_after_ms_delays_next_attempt_within_the_same_maximum() {
    let (get, retry) = (get(), retry());
    let context = context(&get, &retry);
    let after = |status, millis: &str| {
        response_with(status, &[("retry-after-ms", millis), ("retry-after", "9")])
    };
    let millis = Duration::from_millis;
    for (row, outcome, expected) in [
        (
            "longer than the backoff",
            after(429, "12345"),
            paused(millis(12_345), uncharged(millis(12_345))),
        ),
        (
            "shorter than the backoff",
            after(503, "40.5"),
            paused(
                Duration::from_micros(40_500),
                uncharged(THROTTLED_BASE_DELAY),
            ),
        ),
        (
            "at the maximum",
            after(500, "60000"),
            paused(secs(60), charged(secs(60))),
        ),
        ("above the maximum", after(429, "60001"), DONE),
        ("404 ignores it", after(404, "40"), DONE),
        (
            "invalid",
            after(500, "soon"),
            paused(secs(9), charged(secs(9))),
        ),
    ] {
        let decision = context.decide_next_step(&outcome, RANDOM).unwrap();
        assert_eq!(decision, expected, "{row}");
    }
}

/// GitHub Docs, "Rate limits for the REST API", section "Exceeding the rate limit".
#[test]
fn forbidden_request_is_retried_only_after_a_rate_limit() {
    let (post, retry) = (post(), retry());
    let respectful = context(&post, &retry);
    let off = HopContext {
        respect_rate_limit_headers: false,
        ..respectful
    };
    let remaining = |count: &str, reset: &str| {
        response_with(
            403,
            &[
                ("x-ratelimit-remaining", count),
                ("x-ratelimit-reset", reset),
            ],
        )
    };
    let retry_after = |seconds: &str| response_with(403, &[("retry-after", seconds)]);
    let throttled = |seconds| paused(secs(seconds), uncharged(secs(seconds)));
    for (row, context, outcome, expected) in [
        ("used up", respectful, remaining("0", "30"), throttled(30)),
        ("requests left", respectful, remaining("1", "30"), DONE),
        ("above the maximum", respectful, remaining("0", "61"), DONE),
        ("Retry-After", respectful, retry_after("30"), throttled(30)),
        ("no hint", respectful, response(403), DONE),
        (
            "429 of GitHub",
            respectful,
            response_with(429, &[("x-github-request-id", "A1B2")]),
            throttled(60),
        ),
        ("off, used up", off, remaining("0", "30"), DONE),
        ("off, Retry-After", off, retry_after("30"), DONE),
        (
            "off, 429 of GitHub",
            off,
            response_with(429, &[("x-github-request-id", "A1B2")]),
            uncharged(THROTTLED_BASE_DELAY),
        ),
    ] {
        let decision = context.decide_next_step(&outcome, RANDOM).unwrap();
        assert_eq!(decision, expected, "{row}");
    }
}

#[test]
fn retries_are_limited() {
    let (get, retry) = (get(), retry());
    let off = Retry::off();
    let first = context(&get, &retry);
    let after = |charged_retry_count, uncharged_retry_count| HopContext {
        charged_retry_count,
        uncharged_retry_count,
        ..first
    };
    let without_retries = HopContext {
        retry_policy: &off,
        ..first
    };
    for (row, context, outcome, expected) in [
        ("second", after(1, 0), response(500), charged(secs(2))),
        ("limit reached", after(2, 0), response(500), DONE),
        (
            "uncharged retries do not count",
            after(1, 2),
            response(500),
            charged(secs(2)),
        ),
        (
            "the backoff of an overloaded server counts them",
            after(1, 1),
            response(503),
            charged(secs(40)),
        ),
        (
            "throttled beyond the limit",
            after(2, 1),
            response(429),
            uncharged(secs(80)),
        ),
        (
            "too many deferrals are charged",
            after(1, 2),
            response(429),
            charged(secs(80)),
        ),
        (
            "too many deferrals and retries",
            after(2, 2),
            response(429),
            DONE,
        ),
        ("no retries, 500", without_retries, response(500), DONE),
        ("no retries, 429", without_retries, response(429), DONE),
    ] {
        let decision = context.decide_next_step(&outcome, RANDOM).unwrap();
        assert_eq!(decision, expected, "{row}");
    }
}

#[test]
fn final_round_replaces_the_retries_that_are_missing() {
    let (get, retry) = (get(), retry());
    let off = Retry::off();
    let planned = HopContext {
        final_round_state: FinalRoundState::FinalRoundPlanned,
        ..context(&get, &retry)
    };
    let exhausted = HopContext {
        charged_retry_count: 2,
        ..planned
    };
    let running = HopContext {
        final_round_state: FinalRoundState::InFinalRound,
        ..planned
    };
    let without_retries = HopContext {
        retry_policy: &off,
        ..planned
    };
    let final_round = step(NextStep::FinalRound);
    let after_30_seconds = || response_with(503, &[("retry-after", "30")]);
    for (row, context, outcome, expected) in [
        ("retries left", planned, response(500), charged(BASE_DELAY)),
        ("exhausted", exhausted, response(500), final_round),
        (
            "exhausted, with a pause",
            HopContext {
                uncharged_retry_count: 2,
                ..exhausted
            },
            after_30_seconds(),
            paused(secs(30), final_round),
        ),
        ("success", exhausted, response(200), DONE),
        (
            "permanent error",
            exhausted,
            error(ErrorKind::Protocol),
            DONE,
        ),
        ("running", running, response(500), DONE),
        ("running, throttled", running, response(429), DONE),
        ("no retries", without_retries, response(500), DONE),
    ] {
        let decision = context.decide_next_step(&outcome, RANDOM).unwrap();
        assert_eq!(decision, expected, "{row}");
    }
}

#[test]
fn empty_retry_budget_leaves_the_final_round_or_nothing() {
    let (get, retry) = (get(), retry());
    let first = context(&get, &retry);
    let planned = HopContext {
        final_round_state: FinalRoundState::FinalRoundPlanned,
        ..first
    };
    let decision = paused(secs(3), charged(secs(3)));
    assert_eq!(
        first.replace_retry_for_lack_of_budget(decision),
        paused(secs(3), DONE)
    );
    assert_eq!(
        planned.replace_retry_for_lack_of_budget(decision),
        paused(secs(3), step(NextStep::FinalRound))
    );
}

#[test]
fn without_wire_time_no_other_attempt_starts() {
    for (decision, expected) in [
        (paused(secs(3), charged(secs(3))), NextStep::Deliver),
        (uncharged(secs(3)), NextStep::Deliver),
        (step(NextStep::FinalRound), NextStep::Deliver),
        (step(NextStep::NextHop), NextStep::NextHop),
        (step(NextStep::RenewToken), NextStep::RenewToken),
        (DONE, NextStep::Deliver),
    ] {
        let limited = decision.replace_retry_for_lack_of_time();
        assert_eq!(limited.next_step, expected, "{decision:?}");
        assert_eq!(limited.host_pause, decision.host_pause, "{decision:?}");
    }
}

#[test]
fn redirect_is_the_next_hop_and_401_renews_the_token() {
    let (get, retry) = (get(), retry());
    let first = context(&get, &retry);
    let stays = HopContext {
        follows_redirects: false,
        ..first
    };
    let renewable = HopContext {
        can_renew_token: true,
        ..first
    };
    let next_hop = step(NextStep::NextHop);
    let renew_token = step(NextStep::RenewToken);
    let location = [("location", "/x")];
    for (row, context, outcome, expected) in [
        ("302", first, response_with(302, &location), next_hop),
        ("308", first, response_with(308, &location), next_hop),
        ("302 without Location", first, response(302), DONE),
        ("300", first, response_with(300, &location), DONE),
        ("201", first, response_with(201, &location), DONE),
        ("not followed", stays, response_with(302, &location), DONE),
        ("401, renewable", renewable, response(401), renew_token),
        ("403, renewable", renewable, response(403), DONE),
        (
            "302, renewable",
            renewable,
            response_with(302, &location),
            next_hop,
        ),
        ("error", renewable, error(ErrorKind::Protocol), DONE),
    ] {
        let decision = context.decide_next_step(&outcome, RANDOM).unwrap();
        assert_eq!(decision, expected, "{row}");
        // The body of a response is discarded exactly if another hop follows.
        if let Ok(response) = &outcome {
            let leads_to_next_hop =
                context.leads_to_next_hop(response.status(), response.headers());
            assert_eq!(leads_to_next_hop, expected.continues_attempt(), "{row}");
        }
    }
}

#[test]
fn started_handler_prevents_every_other_step() {
    let (get, retry) = (get(), retry());
    let started = HopContext {
        has_handler_started: true,
        can_renew_token: true,
        final_round_state: FinalRoundState::FinalRoundPlanned,
        ..context(&get, &retry)
    };
    for outcome in [
        response(200),
        response(401),
        response_with(503, &[("retry-after", "3")]),
        response_with(302, &[("location", "/x")]),
        error(ErrorKind::Reset),
    ] {
        assert_eq!(started.decide_next_step(&outcome, RANDOM).unwrap(), DONE);
    }
}

#[tokio::test]
async fn consumed_request_body_prevents_a_retry_and_a_renewed_token() {
    let stream = BodyDataStream::new(Full::new(Bytes::from("once")));
    let request = Request::get("http://a.example/")
        .body(Body::stream(stream))
        .build();
    let clock = HopClock::new(tokio::time::Instant::now());
    let sent = request.body().open_for_attempt(None, &clock).await.unwrap();
    sent.collect().await.unwrap();
    assert!(request.body().is_stream_already_taken());
    let retry = retry();
    let context = HopContext {
        can_renew_token: true,
        final_round_state: FinalRoundState::FinalRoundPlanned,
        ..context(&request, &retry)
    };
    for (outcome, expected) in [
        (response(401), DONE),
        (response(500), DONE),
        (response(429), DONE),
        (
            response_with(503, &[("retry-after", "3")]),
            paused(secs(3), DONE),
        ),
        (error(ErrorKind::Reset), DONE),
    ] {
        assert_eq!(
            context.decide_next_step(&outcome, RANDOM).unwrap(),
            expected
        );
    }
}

#[test]
fn callback_overrides_the_default_decision_within_the_limits() {
    let get = get();
    let classify = |decision| retry().classify(move |_, _| decision);
    let (always, later, never) = (
        classify(RetryDecision::Retry),
        classify(RetryDecision::RetryAfter(secs(7))),
        classify(RetryDecision::Done),
    );
    let exhausted = HopContext {
        charged_retry_count: 2,
        ..context(&get, &always)
    };
    for (row, context, outcome, expected) in [
        (
            "retry",
            context(&get, &always),
            response(200),
            charged(BASE_DELAY),
        ),
        (
            "delay",
            context(&get, &later),
            response(200),
            charged(secs(7)),
        ),
        (
            "delay below Retry-After",
            context(&get, &later),
            response_with(503, &[("retry-after", "9")]),
            paused(secs(9), uncharged(secs(9))),
        ),
        (
            "done",
            context(&get, &never),
            response_with(503, &[("retry-after", "9")]),
            paused(secs(9), DONE),
        ),
        ("limit reached", exhausted, response(200), DONE),
        (
            "cancelled",
            context(&get, &always),
            error(ErrorKind::Cancelled),
            DONE,
        ),
        (
            "total timeout",
            context(&get, &always),
            error(ErrorKind::TotalTimeout),
            DONE,
        ),
    ] {
        let decision = context.decide_next_step(&outcome, RANDOM).unwrap();
        assert_eq!(decision, expected, "{row}");
    }
}

#[test]
fn callback_panic_is_an_error() {
    let get = get();
    let retry = retry().classify(|_, _| panic!("in the callback"));
    let error = context(&get, &retry).decide_next_step(&response(200), RANDOM);
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Panicked);
}

#[test]
fn final_status_is_never_followed_by_a_step() {
    let request = Request::get("http://a.example/").build();
    let retry = Retry::default();
    let context = HopContext {
        can_renew_token: true,
        final_round_state: FinalRoundState::FinalRoundPlanned,
        ..context(&request, &retry)
    };
    let headers = [("location", "/next"), ("retry-after", "5")];
    for code in 100..600 {
        if is_final_status(StatusCode::from_u16(code).unwrap(), &retry) {
            let decision = context
                .decide_next_step(&response_with(code, &headers), 0.5)
                .unwrap();
            assert_eq!(decision, HopDecision::DELIVER, "{code}");
        }
    }
}

#[test]
fn no_status_is_final_for_a_classify_callback() {
    let retry = Retry::default().classify(|_, default| default);
    assert!(!is_final_status(StatusCode::OK, &retry));
}

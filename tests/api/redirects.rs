//! Redirects over real sockets. Every hop passes through the schedule.

use crate::support::raw_server::{RawResponse, RawServer};
use crate::support::server::FaultServer;
use fanout::{
    ErrorKind, Fetcher, Host, ProposedRedirect, Rate, RedirectDecision, RedirectPolicy, Request,
    Retry,
};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[tokio::test]
async fn redirects_are_followed_and_recorded() {
    let server = FaultServer::start();
    let response = Fetcher::new().fetch(server.url("/hops/3")).await.unwrap();
    assert_eq!(response.status(), 200);
    let statuses: Vec<_> = response
        .redirects()
        .iter()
        .map(|hop| hop.status().as_u16())
        .collect();
    assert_eq!(statuses.len(), 3);
    assert_eq!(
        response.redirects()[0].url().as_str(),
        server.url("/hops/3")
    );
    assert_ne!(response.url().as_str(), server.url("/hops/3"));
    assert_eq!(
        response.attempts().len(),
        1,
        "all hops belong to one attempt"
    );
    assert_eq!(
        server.counts().total_connections,
        1,
        "the connection of a redirect with a short body is reused"
    );
}

#[tokio::test]
async fn too_many_redirects_error_records_the_redirects() {
    let server = FaultServer::start();
    let fetcher = Fetcher::builder().max_redirects(4).build().unwrap();
    let error = fetcher.fetch(server.url("/hops/5")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Redirect);
    assert_eq!(error.redirects().len(), 4);
    assert_eq!(error.attempts().len(), 1, "not retried");
    let text = error.to_string();
    assert!(
        text.contains("4 redirects were followed; its Location is \""),
        "{text}"
    );
    let response = error.into_response().unwrap();
    assert!(response.status().is_redirection() && response.headers().contains_key("location"));
    assert_eq!(
        (response.redirects().len(), response.attempts().len()),
        (4, 1)
    );
    assert!(fetcher.fetch(server.url("/hops/4")).await.is_ok());
    let request = Request::get(server.url("/hops/5")).max_redirects(5);
    assert!(fetcher.fetch(request).await.is_ok());
}

#[tokio::test]
async fn max_redirects_of_zero_returns_the_redirect_response() {
    let server = FaultServer::start();
    let request = Request::get(server.url("/hops/1")).max_redirects(0);
    let response = Fetcher::new().fetch(request).await.unwrap();
    assert!(response.status().is_redirection());
    assert!(response.headers().contains_key("location"));
    assert!(response.redirects().is_empty());
}

#[tokio::test]
async fn post_is_repeated_on_307_and_becomes_get_on_303() {
    let server = FaultServer::start();
    let other = FaultServer::start();
    for (status, method, length) in [
        (307, "POST", 4),
        (308, "POST", 4),
        (301, "GET", 0),
        (302, "GET", 0),
        (303, "GET", 0),
    ] {
        other.reset();
        let url = server.url(&format!("/redirect/{status}?to={}", other.url("/echo")));
        let request = Request::post(url)
            .body("text")
            .header("content-type", "text/plain");
        Fetcher::new().fetch(request).await.unwrap();
        let log = other.log();
        assert_eq!(
            (log.len(), log[0].method.as_str(), log[0].body.len()),
            (1, method, length),
            "{status}"
        );
    }
}

#[tokio::test]
async fn redirect_drops_request_credentials_and_adds_host_credentials() {
    let server = FaultServer::start();
    let other = FaultServer::start();
    let fetcher = Fetcher::builder()
        .host(other.origin(), Host::new().bearer_auth("of-other"))
        .build()
        .unwrap();
    let url = server.url(&format!("/redirect/302?to={}", other.url("/ok/1")));
    let request = Request::get(url)
        .bearer_auth("of-server")
        .header("cookie", "of-server");
    fetcher.fetch(request).await.unwrap();
    let header = |server: &FaultServer, name: &str| {
        let value = server.log()[0].headers.get(name).cloned();
        value.map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(
        header(&server, "authorization").as_deref(),
        Some("Bearer of-server")
    );
    assert_eq!(
        header(&other, "authorization").as_deref(),
        Some("Bearer of-other")
    );
    assert_eq!(header(&other, "cookie"), None);
}

#[tokio::test]
async fn redirect_to_another_host_obeys_its_limits() {
    let server = FaultServer::start();
    let slow = FaultServer::start();
    let limited = Host::new().rate(Rate::per_second(20)).concurrency(1);
    let fetcher = Fetcher::builder()
        .host(slow.origin(), limited)
        .build()
        .unwrap();
    let url = server.url(&format!("/redirect/302?to={}", slow.url("/delay/10/ok/1")));
    let started = Instant::now();
    let results = fetcher.gather(vec![url; 21]).await;
    assert!(results.iter().all(|result| {
        result
            .as_ref()
            .is_ok_and(|response| response.status() == 200)
    }));
    assert!(
        started.elapsed() >= Duration::from_millis(990),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(slow.counts().max_in_flight, 1);
}

#[tokio::test]
async fn https_only_refuses_the_first_hop_and_every_later_one() {
    let server = FaultServer::start();
    let fetcher = Fetcher::builder().https_only(true).build().unwrap();
    let error = fetcher.fetch(server.url("/ok/1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAllowed);
    assert!(!error.maybe_sent());
    assert_eq!(server.counts().requests, 0);
}

#[tokio::test]
async fn redirect_status_without_a_target_is_the_result() {
    for location in ["Location:\r\n", "Location: \t \r\n", ""] {
        let head = format!("HTTP/1.1 302 Found\r\nContent-Length: 4\r\n{location}\r\nbody");
        let server = RawServer::responding(RawResponse::keep_alive(head));
        let response = Fetcher::new().fetch(server.url("/")).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &*response.text()),
            (302, "body")
        );
        assert!(response.redirects().is_empty());
        assert_eq!(server.requests().len(), 1, "{location:?}");
    }
}

#[tokio::test]
async fn redirect_to_an_unsupported_url_is_a_redirect_error() {
    let server = FaultServer::start();
    for target in ["ftp://127.0.0.1/", "file:///etc/passwd", "http://[::1"] {
        let error = Fetcher::new()
            .fetch(server.url(&format!("/redirect/302?to={target}")))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Redirect, "{target}");
        assert!(
            error.to_string().contains(&format!("\"{target}\"")),
            "{error}"
        );
        assert_eq!(error.response().unwrap().status(), 302);
        assert_eq!(error.response().unwrap().headers()["location"], target);
    }
}

#[tokio::test]
async fn refused_redirect_keeps_the_response_and_quotes_its_location_without_secrets() {
    let location = "http://user:s3cr3t@127.0.0.1:1/x?page=2&key=s3cr3t";
    let head = format!("HTTP/1.1 307 x\r\nContent-Length: 4\r\nLocation: {location}\r\n\r\nbody");
    let server = RawServer::responding(RawResponse::keep_alive(head));
    let port = server.address().port();
    let fetcher = Fetcher::builder().allowed_ports([port]).build().unwrap();
    let error = fetcher.fetch(server.url("/")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAllowed);
    let text = error.to_string();
    assert!(text.contains("127.0.0.1:1/x?page=***&key=***"), "{text}");
    assert!(!text.contains("s3cr3t") && !format!("{error:?}").contains("s3cr3t"));
    let response = error.into_response().unwrap();
    assert_eq!(
        (response.status().as_u16(), response.bytes().len()),
        (307, 0)
    );
    assert_eq!(response.headers()["location"], location);
}

#[tokio::test]
async fn history_is_readable_after_the_result_was_moved_out() {
    let server = FaultServer::start();
    let retry = Retry::default().base_delay(Duration::from_millis(1));
    let fetcher = Fetcher::builder().retry(retry).build().unwrap();
    let urls =
        ["/hops/2", "/flaky/a/1/503", "/hops/20", "/reset-before"].map(|path| server.url(path));
    let expected = [(1, 2), (2, 0), (1, 10), (3, 0)];
    let mut done = fetcher.as_completed(&urls);
    let mut with_handler = fetcher
        .batch(&urls[..1])
        .read_with(|body| async move { Ok(body.status()) })
        .as_completed();
    while let Some(completed) = done.next().await {
        let (attempts, redirects, timings) = match completed.result {
            Ok(response) => (
                response.attempts().to_vec(),
                response.redirects().to_vec(),
                response.timings(),
            ),
            Err(error) => (
                error.attempts().to_vec(),
                error.redirects().to_vec(),
                error.timings(),
            ),
        };
        let history = completed.history;
        assert_eq!(history.attempts(), attempts);
        assert_eq!(history.redirects(), redirects);
        assert_eq!(history.timings(), timings);
        assert_eq!(
            (attempts.len(), redirects.len()),
            expected[completed.index],
            "{}",
            completed.request
        );
    }
    let completed = with_handler.next().await.unwrap();
    assert_eq!(completed.result.unwrap(), 200);
    assert_eq!(completed.history.redirects().len(), 2);
    assert_eq!(completed.history.attempts().len(), 1);
    assert!(completed.history.timings().response_head() > Duration::ZERO);
}

/// Returns the path of the result's URL and its status.
async fn end_of(fetcher: &Fetcher, request: Request) -> (String, u16) {
    let response = fetcher.fetch(request).await.unwrap();
    (response.url().path().to_owned(), response.status().as_u16())
}

#[tokio::test]
async fn redirect_policy_of_a_request_overrides_the_policy_of_the_fetcher() {
    let server = FaultServer::start();
    let stopping = Fetcher::builder()
        .redirect_policy(RedirectPolicy::none())
        .build()
        .unwrap();
    let sibling = stopping.to_builder().build().unwrap();
    for fetcher in [&stopping, &sibling] {
        let request = || Request::get(server.url("/hops/2"));
        assert_eq!(
            end_of(fetcher, request().build()).await,
            ("/hops/2".to_owned(), 302)
        );
        let followed = request().redirect_policy(RedirectPolicy::all()).build();
        assert_eq!(end_of(fetcher, followed).await.1, 200);
    }
}

#[tokio::test]
async fn same_host_policy_stops_at_another_host_and_returns_the_whole_response() {
    let head = |location: &str| {
        let head = format!("HTTP/1.1 302 x\r\nContent-Length: 4\r\nLocation: {location}");
        RawResponse::keep_alive(format!("{head}\r\n\r\nbody"))
    };
    let server = RawServer::start(move |request| match request.line().as_str() {
        "GET /same" => head("/other"),
        _ => head("http://localhost:1/x"),
    });
    let policy = RedirectPolicy::same_host();
    let fetcher = Fetcher::builder().redirect_policy(policy).build().unwrap();
    let response = fetcher.fetch(server.url("/same")).await.unwrap();
    assert_eq!(response.url().path(), "/other");
    assert_eq!(
        (response.status().as_u16(), &*response.text()),
        (302, "body")
    );
    assert_eq!(response.redirects().len(), 1);
    assert_eq!(server.accepted_connections(), 1);
}

#[tokio::test]
async fn custom_policy_is_called_once_for_each_redirect_and_decides() {
    let server = FaultServer::start();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let seen_by_policy = Arc::clone(&seen);
    let policy = RedirectPolicy::custom(move |redirect| {
        seen_by_policy.lock().unwrap().push((
            redirect.status().as_u16(),
            redirect.url().path().to_owned(),
            redirect.target_url().path().to_owned(),
            redirect.earlier_redirects().len(),
        ));
        match redirect.earlier_redirects().len() {
            0 | 1 => RedirectDecision::Follow,
            _ => RedirectDecision::Stop,
        }
    });
    // A policy that stops a redirect leaves the response to `Retry::classify`.
    let classified = Arc::new(Mutex::new(Vec::new()));
    let classified_by_retry = Arc::clone(&classified);
    let retry = Retry::default().classify(move |outcome, decision| {
        let status = outcome.as_ref().map(|response| response.status().as_u16());
        classified_by_retry.lock().unwrap().push(status.ok());
        decision
    });
    let builder = Fetcher::builder().redirect_policy(policy).retry(retry);
    let fetcher = builder.build().unwrap();
    let response = fetcher.fetch(server.url("/hops/5")).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.redirects().len()),
        (302, 2)
    );
    assert_eq!(server.log().len(), 3);
    let seen = seen.lock().unwrap();
    let earlier: Vec<_> = seen
        .iter()
        .map(|(status, _, _, earlier)| (*status, *earlier))
        .collect();
    assert_eq!(earlier, [(302, 0), (302, 1), (302, 2)]);
    assert_eq!(seen[0].1, "/hops/5");
    assert_eq!(seen[0].2, seen[1].1);
    assert_eq!(*classified.lock().unwrap(), [Some(302)]);
}

#[tokio::test]
async fn failing_and_panicking_policies_are_errors_with_the_response() {
    let server = FaultServer::start();
    let fail = RedirectPolicy::custom(|_| RedirectDecision::Fail);
    let panic = RedirectPolicy::custom(|_: &ProposedRedirect<'_>| panic!("no redirects here"));
    for (policy, kind, text) in [
        (
            fail,
            ErrorKind::Redirect,
            "refused by the policy; its Location is \"",
        ),
        (
            panic,
            ErrorKind::Panicked,
            "no redirects here; its Location is \"",
        ),
    ] {
        let request = Request::get(server.url("/hops/3")).redirect_policy(policy);
        let error = Fetcher::new().fetch(request).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(error.attempts().len(), 1);
        assert_eq!(error.into_response().unwrap().status(), 302);
    }
}

#[tokio::test]
async fn handler_reads_the_response_of_a_stopped_redirect_and_none_of_a_failed_one() {
    let server = FaultServer::start();
    let statuses = |policy: RedirectPolicy| {
        let fetcher = Fetcher::builder().redirect_policy(policy).build().unwrap();
        let url = server.url("/hops/1");
        async move {
            let read = fetcher
                .fetch(url)
                .read_with(|response| async move { Ok(response.status().as_u16()) });
            read.await.map_err(|error| error.kind())
        }
    };
    assert_eq!(statuses(RedirectPolicy::none()).await, Ok(302));
    assert_eq!(statuses(RedirectPolicy::all()).await, Ok(200));
    let fail = RedirectPolicy::custom(|_| RedirectDecision::Fail);
    assert_eq!(statuses(fail).await, Err(ErrorKind::Redirect));
}

#[tokio::test]
async fn policy_is_not_called_for_an_invalid_or_a_missing_location() {
    let policy = RedirectPolicy::custom(|_: &ProposedRedirect<'_>| panic!("called"));
    let fetcher = Fetcher::builder().redirect_policy(policy).build().unwrap();
    for (location, kind) in [
        ("Location: http://[::1\r\n", Some(ErrorKind::Redirect)),
        ("Location: \r\n", None),
        ("", None),
    ] {
        let head = format!("HTTP/1.1 302 x\r\nContent-Length: 0\r\n{location}\r\n");
        let server = RawServer::responding(RawResponse::keep_alive(head));
        let result = fetcher.fetch(server.url("/")).await;
        assert_eq!(result.err().map(|error| error.kind()), kind, "{location:?}");
    }
}

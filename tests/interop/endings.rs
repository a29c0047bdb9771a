//! How connections, and servers, end: nginx, told to.

use std::process::Command;
use std::time::Duration;

use fanout::{Breaker, ErrorKind, Fetcher, Rate, Request, Retry};
use tokio::time::sleep;

use crate::site::{Site, header, state};
use crate::suite::Suite;

pub async fn run(suite: &mut Suite, site: &Site) {
    let site = *site;
    suite
        .case(&site, "closed after each answer", closing(site))
        .await;
    suite
        .case(&site, "closed after ten answers", ten(site))
        .await;
    suite
        .case(&site, "closed while they rest", restless(site))
        .await;
    suite
        .case(&site, "POST after they were closed", restless_post(site))
        .await;
    for status in [429, 503] {
        suite
            .case(
                &site,
                &format!("{status} and Retry-After"),
                limited(site, status),
            )
            .await;
    }
    suite
        .case(&site, "reloaded in mid-batch", reloaded(site))
        .await;
    suite
        .case(&site, "killed and started in mid-batch", restarted(site))
        .await;
    suite.case(&site, "gone", gone(site)).await;
}

/// All are answered, each by its first attempt.
async fn all_at_once(site: Site, fetcher: &Fetcher, path: &str, count: usize, concurrency: usize) {
    let urls = (0..count).map(|_| site.url(path));
    for result in fetcher.batch(urls).concurrency(concurrency).gather().await {
        let response = result.unwrap();
        site.assert_numbers(&response, 80);
        assert_eq!(response.attempts().len(), 1);
    }
}

async fn closing(site: Site) {
    all_at_once(site, &site.fetcher(), "/closing/small.txt", 200, 8).await;
}

async fn ten(site: Site) {
    let fetcher = site.builder().retry(Retry::off()).build().unwrap();
    all_at_once(site, &fetcher, "/ten/small.txt", 500, 8).await;
}

async fn restless(site: Site) {
    let fetcher = site.builder().retry(Retry::off()).build().unwrap();
    for pause in [0, 290, 300, 310, 900] {
        sleep(Duration::from_millis(pause)).await;
        all_at_once(site, &fetcher, "/restless/small.txt", 32, 16).await;
    }
}

async fn restless_post(site: Site) {
    let fetcher = site.builder().retry(Retry::off()).build().unwrap();
    all_at_once(site, &fetcher, "/restless/small.txt", 16, 16).await;
    // Long enough for the end of each connection to have been seen, so that none is used.
    sleep(Duration::from_millis(1500)).await;
    let requests = (0..16).map(|n| Request::post(site.url("/app/echo")).body(format!("{n}")));
    for (n, result) in fetcher.gather(requests).await.into_iter().enumerate() {
        assert_eq!(result.unwrap().text(), n.to_string());
    }
}

async fn limited(site: Site, status: u16) {
    let url = site.url(&format!("/limited/{status}/small.txt"));
    let once = site.builder().retry(Retry::off()).build().unwrap();
    let refused = once.gather((0..40).map(|_| &url)).await;
    let refused: Vec<_> = refused
        .into_iter()
        .map(Result::unwrap)
        .filter(|it| it.status() == status)
        .collect();
    assert!(!refused.is_empty(), "the limit was never reached");
    for response in refused {
        assert_eq!(response.retry_after(), Some(Duration::from_secs(1)));
        assert!(!response.text().is_empty());
    }
    let retry = Retry::default()
        .max_retries(30)
        .throttled_base_delay(Duration::from_millis(50));
    let patient = site.builder().retry(retry).build().unwrap();
    let mut retries = 0;
    for result in patient.gather((0..40).map(|_| &url)).await {
        let response = result.unwrap();
        site.assert_numbers(&response, 80);
        retries += response.attempts().len() - 1;
    }
    assert!(retries > 0, "nothing was tried again");
}

fn signal(name: &str) {
    let pid = std::fs::read_to_string(state().join("nginx.pid")).unwrap();
    let kill = Command::new("kill").args([name, pid.trim()]).status();
    assert!(kill.unwrap().success());
}

/// As `scripts/interop` started it.
fn start() {
    let mut again = Command::new("setsid");
    again
        .args(["--fork", "sh"])
        .arg(state().join("nginx.run"))
        .current_dir(state());
    assert!(again.status().unwrap().success());
}

async fn listening(site: Site) {
    let once = site.builder().retry(Retry::off()).build().unwrap();
    while once.fetch(site.url("/small.txt")).await.is_err() {
        sleep(Duration::from_millis(50)).await;
    }
}

fn stubborn(site: Site) -> Fetcher {
    let retry = Retry::default()
        .max_retries(30)
        .max_delay(Duration::from_millis(400));
    // A server that is started anew is away for a moment, not for fifteen seconds.
    let breaker = Breaker::default().cooldown(Duration::from_millis(200));
    let builder = site.builder().retry(retry).breaker(breaker);
    builder.build().unwrap()
}

/// Two seconds of requests, while `disturb` happens. Gives how many were tried again.
async fn disturbed(site: Site, disturb: impl Future<Output = ()> + Send + 'static) -> usize {
    let fetcher = stubborn(site);
    // Each tenth is long, so that some are always at it.
    let file = |n| {
        if n % 10 == 0 {
            ("/1m.txt", 1_000_000)
        } else {
            ("/small.txt", 80)
        }
    };
    let requests =
        (0..1000).map(|n| Request::get(site.url(file(n).0)).header("accept-encoding", "identity"));
    let batch = fetcher
        .batch(requests)
        .concurrency(16)
        .rate(Rate::per_second(500))
        .gather();
    let (results, ()) = tokio::join!(batch, disturb);
    let again = results.into_iter().enumerate().map(|(n, result)| {
        let response = result.unwrap();
        site.assert_numbers(&response, file(n).1);
        response.attempts().len() - 1
    });
    again.sum()
}

async fn reloaded(site: Site) {
    let again = disturbed(site, async {
        for _ in 0..3 {
            sleep(Duration::from_millis(400)).await;
            signal("-HUP");
        }
    });
    // The old workers finish what they have begun; a few requests may meet a closing connection.
    assert!(again.await < 50);
}

async fn restarted(site: Site) {
    let again = disturbed(site, async {
        sleep(Duration::from_millis(500)).await;
        signal("-TERM");
        sleep(Duration::from_millis(500)).await;
        start();
    });
    assert!(again.await > 0, "the server was never away");
}

async fn gone(site: Site) {
    let builder = site.builder().retry(Retry::off());
    let fetcher = builder.breaker(Breaker::off()).build().unwrap();
    all_at_once(site, &fetcher, "/small.txt", 8, 8).await;
    signal("-TERM");
    while fetcher.fetch(site.url("/small.txt")).await.is_ok() {
        sleep(Duration::from_millis(50)).await;
    }
    for result in fetcher
        .gather((0..50).map(|_| site.url("/small.txt")))
        .await
    {
        let error = result.unwrap_err();
        assert_eq!(
            (error.kind(), error.maybe_sent()),
            (ErrorKind::Connect, false)
        );
    }
    start();
    listening(site).await;
    assert_eq!(
        header(
            &fetcher.fetch(site.url("/small.txt")).await.unwrap(),
            "content-type"
        ),
        "text/plain"
    );
}

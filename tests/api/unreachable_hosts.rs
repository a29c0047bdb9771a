//! Unreachable hosts cost few attempts, and reachable hosts still succeed.

use std::collections::HashMap;
use std::time::Duration;

use crate::support::server::{FaultServer, refused_url};
use fanout::{Breaker, ErrorKind, Fetcher};

const REQUESTS_PER_HOST: usize = 10_000;

#[tokio::test(flavor = "multi_thread")]
async fn breaker_limits_the_attempts_to_an_unreachable_host() {
    let server = FaultServer::start();
    let unreachable_url = refused_url();
    let cooldown = Duration::from_millis(500);
    let fetcher = Fetcher::builder()
        .breaker(Breaker::default().cooldown(cooldown).max_wait(cooldown))
        .build()
        .unwrap();
    let inputs = (0..2 * REQUESTS_PER_HOST).map(|index| match index % 2 {
        0 => format!("{unreachable_url}{index}"),
        _ => server.url(&format!("/ok/{index}")),
    });
    let results = fetcher.gather(inputs).await;
    assert_eq!(results.len(), 2 * REQUESTS_PER_HOST);
    let mut attempts = 0;
    let mut error_counts: HashMap<ErrorKind, usize> = HashMap::new();
    for (index, result) in results.iter().enumerate() {
        match result {
            Ok(response) => assert!(index % 2 == 1 && response.status() == 200),
            Err(error) => {
                assert!(index % 2 == 0, "{error}");
                assert!(!error.maybe_sent());
                attempts += error.attempts().len();
                *error_counts.entry(error.kind()).or_default() += 1;
            }
        }
    }
    assert_eq!(error_counts.values().sum::<usize>(), REQUESTS_PER_HOST);
    let refused = error_counts[&ErrorKind::HostDown];
    assert!(refused > REQUESTS_PER_HOST - 500, "{error_counts:?}");
    // Without the breaker, three attempts per request would be 30,000.
    assert!(attempts < 3 * 500, "{attempts}");
}

#[tokio::test]
async fn recovered_host_is_used_after_a_probe() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let fetcher = Fetcher::builder()
        .breaker(Breaker::default().cooldown(Duration::from_millis(300)))
        .build()
        .unwrap();
    let url = format!("http://{address}/");
    for _ in 0..2 {
        let error = fetcher.fetch(&url).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.attempts().len()),
            (ErrorKind::Connect, 3)
        );
    }
    let listener = socket.listen(64).unwrap();
    let serving = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 4096];
                while stream.read(&mut head).await.is_ok_and(|read| read > 0) {
                    let response = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nup";
                    if stream.write_all(response).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    let results = fetcher.gather(vec![url; 20]).await;
    for result in results {
        assert_eq!(result.unwrap().text(), "up");
    }
    serving.abort();
}

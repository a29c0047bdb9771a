//! A host that is down costs a batch seconds, and the live ones nothing.

use std::collections::HashMap;
use std::time::Duration;

use crate::support::server::{FaultServer, refused_url};
use fanout::{Breaker, ErrorKind, Fetcher};

const MANY: usize = 10_000;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_urls_of_a_dead_host_among_as_many_live_ones_end_in_seconds() {
    let server = FaultServer::start();
    let dead = refused_url();
    let cooldown = Duration::from_millis(500);
    let fetcher = Fetcher::builder()
        .breaker(Breaker::default().cooldown(cooldown).max_wait(cooldown))
        .build()
        .unwrap();
    let inputs = (0..2 * MANY).map(|index| match index % 2 {
        0 => format!("{dead}{index}"),
        _ => server.url(&format!("/ok/{index}")),
    });
    let results = fetcher.gather(inputs).await;
    assert_eq!(results.len(), 2 * MANY);
    let mut attempts = 0;
    let mut ends: HashMap<ErrorKind, usize> = HashMap::new();
    for (index, result) in results.iter().enumerate() {
        match result {
            Ok(response) => assert!(index % 2 == 1 && response.status() == 200),
            Err(error) => {
                assert!(index % 2 == 0, "{error}");
                assert!(!error.maybe_sent());
                attempts += error.attempts().len();
                *ends.entry(error.kind()).or_default() += 1;
            }
        }
    }
    assert_eq!(ends.values().sum::<usize>(), MANY);
    let refused = ends[&ErrorKind::HostDown];
    assert!(refused > MANY - 500, "{ends:?}");
    // A round of retries for each would be 30,000.
    assert!(attempts < 3 * 500, "{attempts}");
}

#[tokio::test]
async fn a_host_that_comes_back_is_found_by_one_probe() {
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
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nup";
                    if stream.write_all(answer).await.is_err() {
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

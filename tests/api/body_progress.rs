//! The progress of bodies while they arrive: of one request, of a batch and of a Fetcher.

use std::time::Duration;

use crate::support::body_streams::{TempDir, listen, read_head, wait_until, write};
use fanout::{BodyProgress, Fetcher, Request, Retry};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// Starts a server. Each request is answered with `head`, and then with the number of bytes that
/// the returned sender gets, in turn. Returns the URL, too.
async fn start_stepped_server(head: &'static str) -> (String, UnboundedSender<usize>) {
    let (listener, url) = listen().await;
    let (sender, mut steps) = unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.set_nodelay(true).unwrap();
            read_head(&mut socket).await;
            write(&mut socket, head).await;
            serve_steps(&mut socket, &mut steps).await;
        }
    });
    (url, sender)
}

/// Sends bytes until a step of zero bytes, which closes the connection.
async fn serve_steps(
    socket: &mut TcpStream,
    steps: &mut tokio::sync::mpsc::UnboundedReceiver<usize>,
) {
    while let Some(length) = steps.recv().await.filter(|length| *length > 0) {
        write(socket, vec![b'.'; length]).await;
    }
}

/// Sends the body in three steps and compares the progress after each step.
async fn assert_progress_of_steps(
    fetcher: Fetcher,
    request: Request,
    steps: UnboundedSender<usize>,
) {
    let progress = request.body_progress().unwrap().clone();
    assert_eq!(
        (progress.received_bytes(), progress.total_bytes()),
        (0, None)
    );
    let batch = fetcher.batch([request]);
    let handle = batch.handle();
    let gather = tokio::spawn(batch.gather());
    let mut sum = 0;
    for step in [10_000, 1, 20_000] {
        steps.send(step).unwrap();
        sum += step as u64;
        wait_until(|| progress.received_bytes() == sum).await;
        assert_eq!(progress.total_bytes(), Some(50_000));
        assert_eq!(handle.progress().body_bytes(), sum);
        assert_eq!(fetcher.snapshot().progress().body_bytes(), sum);
        assert_eq!(handle.progress().completed(), 0);
    }
    steps.send(19_999).unwrap();
    let results = gather.await.unwrap();
    assert_eq!(results[0].as_ref().unwrap().status(), 200);
    assert_eq!(
        (progress.received_bytes(), progress.total_bytes()),
        (50_000, Some(50_000))
    );
    assert_eq!(handle.progress().body_bytes(), 50_000);
    assert_eq!(fetcher.snapshot().progress().body_bytes(), 50_000);
}

const SIZED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 50000\r\n\r\n";

#[tokio::test]
async fn bytes_of_a_body_in_memory_count_as_they_arrive() {
    let (url, steps) = start_stepped_server(SIZED).await;
    let request = Request::get(url)
        .body_progress(&BodyProgress::new())
        .build();
    assert_progress_of_steps(Fetcher::new(), request, steps).await;
}

#[tokio::test]
async fn bytes_of_a_saved_file_count_as_they_arrive() {
    let (url, steps) = start_stepped_server(SIZED).await;
    let directory = TempDir::new();
    let request = Request::get(url)
        .save_to(directory.path("file"))
        .body_progress(&BodyProgress::new());
    assert_progress_of_steps(Fetcher::new(), request.build(), steps).await;
}

#[tokio::test]
async fn bytes_read_by_a_handler_count_as_they_arrive() {
    let (url, steps) = start_stepped_server(SIZED).await;
    let progress = BodyProgress::new();
    let fetcher = Fetcher::new();
    let request = Request::get(url).body_progress(&progress);
    let read = fetcher.fetch(request).read_with(|mut response| async move {
        while let Some(chunk) = response.next().await {
            chunk?;
        }
        Ok(())
    });
    let read = tokio::spawn(read);
    steps.send(30_000).unwrap();
    wait_until(|| progress.received_bytes() == 30_000).await;
    assert_eq!(progress.total_bytes(), Some(50_000));
    assert_eq!(fetcher.snapshot().progress().body_bytes(), 30_000);
    steps.send(20_000).unwrap();
    read.await.unwrap().unwrap();
    assert_eq!(progress.received_bytes(), 50_000);
    assert_eq!(fetcher.snapshot().progress().body_bytes(), 50_000);
}

#[tokio::test]
async fn total_of_a_body_without_length_is_known_at_its_end() {
    let (url, steps) = start_stepped_server("HTTP/1.1 200 OK\r\n\r\n").await;
    let progress = BodyProgress::new();
    let fetch = Fetcher::new().fetch(Request::get(url).body_progress(&progress));
    let fetch = tokio::spawn(fetch);
    steps.send(7).unwrap();
    wait_until(|| progress.received_bytes() == 7).await;
    assert_eq!(progress.total_bytes(), None);
    steps.send(3).unwrap();
    steps.send(0).unwrap();
    assert_eq!(fetch.await.unwrap().unwrap().bytes().len(), 10);
    assert_eq!(
        (progress.received_bytes(), progress.total_bytes()),
        (10, Some(10))
    );
}

#[tokio::test]
async fn failed_attempt_does_not_count() {
    let (url, steps) = start_stepped_server(SIZED).await;
    let progress = BodyProgress::new();
    let retry = Retry::default().base_delay(Duration::from_millis(1));
    let fetcher = Fetcher::builder().retry(retry).build().unwrap();
    let batch = fetcher.batch([Request::get(url).body_progress(&progress)]);
    let handle = batch.handle();
    let gather = tokio::spawn(batch.gather());
    steps.send(30_000).unwrap();
    wait_until(|| progress.received_bytes() == 30_000).await;
    steps.send(0).unwrap();
    steps.send(10_000).unwrap();
    wait_until(|| progress.received_bytes() == 10_000).await;
    assert_eq!(handle.progress().body_bytes(), 10_000);
    steps.send(40_000).unwrap();
    assert!(gather.await.unwrap()[0].is_ok());
    assert_eq!(handle.progress().body_bytes(), 50_000);
}

#[tokio::test]
async fn resumed_file_continues_its_progress() {
    let (listener, url) = listen().await;
    let (sender, mut steps) = unbounded_channel();
    tokio::spawn(async move {
        for head in [
            "HTTP/1.1 200 OK\r\netag: \"v\"\r\ncontent-length: 50000\r\n\r\n",
            "HTTP/1.1 206 Partial Content\r\netag: \"v\"\r\ncontent-length: 20000\r\n\
             content-range: bytes 30000-49999/50000\r\n\r\n",
        ] {
            let (mut socket, _) = listener.accept().await.unwrap();
            read_head(&mut socket).await;
            write(&mut socket, head).await;
            serve_steps(&mut socket, &mut steps).await;
        }
    });
    let directory = TempDir::new();
    let progress = BodyProgress::new();
    let retry = Retry::default().base_delay(Duration::from_millis(1));
    let fetcher = Fetcher::builder().retry(retry).build().unwrap();
    let request = Request::get(url)
        .save_to(directory.path("file"))
        .body_progress(&progress);
    let fetch = tokio::spawn(fetcher.fetch(request));
    sender.send(30_000).unwrap();
    wait_until(|| progress.received_bytes() == 30_000).await;
    sender.send(0).unwrap();
    sender.send(5_000).unwrap();
    wait_until(|| progress.received_bytes() > 30_000).await;
    wait_until(|| progress.received_bytes() == 35_000).await;
    assert_eq!(progress.total_bytes(), Some(50_000));
    assert_eq!(fetcher.snapshot().progress().body_bytes(), 35_000);
    sender.send(15_000).unwrap();
    assert_eq!(fetch.await.unwrap().unwrap().saved_bytes(), Some(50_000));
    assert_eq!(progress.received_bytes(), 50_000);
}

#[cfg(feature = "gzip")]
#[tokio::test]
async fn decoded_bytes_count() {
    use crate::support::encoding_server::{EncodedResponse, Framing, encode, serve};

    let address =
        serve(|_| EncodedResponse::coded("gzip", encode("gzip", &[b'a'; 50_000]), Framing::Length));
    let progress = BodyProgress::new();
    let request = Request::get(format!("http://{address}/")).body_progress(&progress);
    Fetcher::new().fetch(request).await.unwrap();
    assert_eq!(
        (progress.received_bytes(), progress.total_bytes()),
        (50_000, Some(50_000))
    );
}

#[tokio::test]
async fn body_of_a_redirect_does_not_count() {
    let server = crate::support::server::FaultServer::start();
    let progress = BodyProgress::new();
    let request = Request::get(server.url("/redirect/302?to=/ok/1")).body_progress(&progress);
    let response = Fetcher::new().fetch(request).await.unwrap();
    assert_eq!(response.redirects().len(), 1);
    assert_eq!(progress.received_bytes(), response.bytes().len() as u64);
}

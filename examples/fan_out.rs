//! An HTTP handler that queries five backends and responds within 200 ms with the results so far.
//!
//! asyncio: `done, pending = await asyncio.wait(tasks, timeout=0.2)`, then cancel `pending`. Here
//! the deadline of the batch does both: an unfinished request is an error in the results.
//!
//! ```text
//! cargo run --release --example fan_out
//! ```

mod demo;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::{Json, Router, extract::State, routing::get};
use fanout::{Fetcher, Response};
use tokio::net::TcpListener;

/// The state of the service. All handlers share one Fetcher, its connections and its limits.
struct App {
    fetcher: Fetcher,
    backends: Vec<String>,
}

async fn offers(State(app): State<Arc<App>>) -> Json<Vec<Option<String>>> {
    let batch = app.fetcher.batch(&app.backends);
    let results = batch.deadline(Duration::from_millis(200)).gather().await;
    let offers = results.into_iter().map(|result| {
        let response = result.and_then(Response::error_for_status);
        response.map(|response| response.text().into_owned()).ok()
    });
    Json(offers.collect())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = demo::start().await;
    let app = App {
        fetcher: Fetcher::new(),
        backends: [0, 10, 20, 30, 60_000]
            .map(|millis| format!("{server}/delay/{millis}"))
            .to_vec(),
    };
    let routes = Router::new()
        .route("/offers", get(offers))
        .with_state(Arc::new(app));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/offers", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, routes).await });

    let started = Instant::now();
    let offers: Vec<Option<String>> = Fetcher::new().fetch(url).await?.json()?;
    println!("after {:.1?}: {offers:#?}", started.elapsed());

    assert_eq!(offers.len(), 5, "one result per backend");
    assert_eq!(offers[4], None, "the slow backend has no offer");
    Ok(())
}

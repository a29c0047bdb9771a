//! A local server for the examples, so that they run offline. It is not part of the crate.
//!
//! ```text
//! let server = demo::start().await;                       // http://127.0.0.1:41234
//! let url = format!("{server}/delay/50");
//! ```
//!
//! | route | response |
//! |---|---|
//! | `/delay/{ms}` | a short text, after `ms` milliseconds (at most 60,000) |
//! | `/json/todo/{id}` | `{"id": …, "title": …, "done": …}` |
//! | `/status/{code}` | the status `code` |
//! | `/bytes/{n}` | `n` bytes (at most 16 MiB) |
//! | `/page/{n}` | a small HTML page with a title and links to other pages |
//! | `/list/{n}` | page `n` of 20 of a list, as JSON, with a `Link` header to the next page |
//! | `/headers` | the request's headers, as JSON |
//! | `/post` | the request's body, with its content type |
//! | `/peak` | the largest number of concurrent `/delay` requests so far |
//!
//! The server listens on a free port of 127.0.0.1 until the runtime that started it shuts down.
#![allow(dead_code, unreachable_pub)] // each example uses some routes

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    http::{
        HeaderMap, StatusCode,
        header::{CONTENT_TYPE, LINK},
    },
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{net::TcpListener, time::sleep};

/// Starts the server and returns its base URL without a trailing slash.
pub async fn start() -> String {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port on loopback");
    let address = listener.local_addr().expect("a bound socket");
    tokio::spawn(async move { axum::serve(listener, routes()).await });
    format!("http://{address}")
}

fn routes() -> Router {
    Router::new()
        .route("/delay/{ms}", get(delay))
        .route("/json/todo/{id}", get(todo))
        .route("/status/{code}", get(status))
        .route("/bytes/{n}", get(bytes))
        .route("/page/{n}", get(page))
        .route("/list/{n}", get(list))
        .route("/headers", get(headers))
        .route("/post", post(echo))
        .route("/peak", get(peak))
        .with_state(DelayCounter::default())
}

/// The current and the largest number of concurrent `/delay` requests.
#[derive(Clone, Default)]
struct DelayCounter(Arc<Mutex<(usize, usize)>>);

impl DelayCounter {
    fn enter(self) -> DelayGuard {
        let mut counts = self.0.lock().expect("no panic under the lock");
        counts.0 += 1;
        counts.1 = counts.1.max(counts.0);
        drop(counts);
        DelayGuard(self)
    }
}

/// Counts a request until it is dropped, even if the client disconnects.
struct DelayGuard(DelayCounter);

impl Drop for DelayGuard {
    fn drop(&mut self) {
        self.0.0.lock().expect("no panic under the lock").0 -= 1;
    }
}

async fn delay(State(counter): State<DelayCounter>, Path(ms): Path<u64>) -> String {
    let _guard = counter.enter();
    sleep(Duration::from_millis(ms.min(60_000))).await;
    format!("waited {ms} ms")
}

async fn peak(State(counter): State<DelayCounter>) -> String {
    let counts = counter.0.lock().expect("no panic under the lock");
    counts.1.to_string()
}

#[derive(Serialize)]
struct Todo {
    id: u32,
    title: String,
    done: bool,
}

async fn todo(Path(id): Path<u32>) -> Json<Todo> {
    const TITLES: [&str; 4] = [
        "water the plants",
        "answer the letters",
        "mend the fence",
        "read a book",
    ];
    Json(Todo {
        id,
        title: TITLES[id as usize % TITLES.len()].to_owned(),
        done: id.is_multiple_of(3),
    })
}

async fn status(Path(code): Path<u16>) -> Response {
    match StatusCode::from_u16(code) {
        Ok(status) => (status, status.to_string()).into_response(),
        Err(_) => (StatusCode::BAD_REQUEST, "no such status").into_response(),
    }
}

async fn bytes(Path(n): Path<usize>) -> Vec<u8> {
    vec![b'x'; n.min(16 << 20)]
}

async fn page(Path(n): Path<u64>) -> Html<String> {
    let (next, far) = (n.wrapping_add(1), n.wrapping_mul(2));
    Html(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><title>Page {n}</title></head>\n\
         <body>\n<h1>Page {n}</h1>\n<a href=\"/page/{next}\">next</a>\n\
         <a href=\"/page/{far}\">far</a>\n</body>\n</html>\n"
    ))
}

async fn list(Path(n): Path<u64>) -> Response {
    let items = Json((n * 10..n * 10 + 10).collect::<Vec<_>>());
    match n {
        1..20 => ([(LINK, format!("</list/{}>; rel=\"next\"", n + 1))], items).into_response(),
        20 => items.into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn headers(headers: HeaderMap) -> Json<BTreeMap<String, String>> {
    let shown = headers.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.to_string(), value)
    });
    Json(shown.collect())
}

async fn echo(headers: HeaderMap, body: Bytes) -> Response {
    match headers.get(CONTENT_TYPE) {
        Some(kind) => ([(CONTENT_TYPE, kind.clone())], body).into_response(),
        None => body.into_response(),
    }
}

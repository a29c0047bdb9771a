//! Reads JSON into structs of one's own, and sends it.
//!
//! aiohttp: `response.raise_for_status(); todo = await response.json()`, and
//! `session.post(url, json=todo)`. The body is here already, so reading it is a plain call.
//!
//! ```text
//! cargo run --release --example json
//! ```

mod demo;

use fanout::{ErrorKind, Fetcher, Request};
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Todo {
    id: u32,
    title: String,
    done: bool,
}

#[tokio::main]
async fn main() -> fanout::Result<()> {
    let server = demo::start().await;
    let fetcher = Fetcher::new();

    let urls = (1..=4).map(|id| format!("{server}/json/todo/{id}"));
    let mut todos = Vec::new();
    for response in fetcher.batch(urls).try_gather().await? {
        let todo: Todo = response.error_for_status()?.json()?;
        println!("{todo:?}");
        todos.push(todo);
    }
    assert!(todos.iter().map(|todo| todo.id).eq(1..=4));

    // The server sends back what it is sent.
    let post = Request::post(format!("{server}/post")).json(&todos[0]);
    let echoed: Todo = fetcher.fetch(post).await?.error_for_status()?.json()?;
    assert_eq!(echoed, todos[0]);

    // What is not the JSON expected is an error that says where.
    let page = fetcher.fetch(format!("{server}/page/1")).await?;
    let error = page.json::<Todo>().expect_err("a page is not a todo");
    println!(
        "{error}: {}",
        std::error::Error::source(&error).expect("a place")
    );
    assert_eq!(error.kind(), ErrorKind::Json);
    Ok(())
}

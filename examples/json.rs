//! Reads JSON into a struct and sends a struct as JSON.
//!
//! aiohttp: `response.raise_for_status(); todo = await response.json()`, and
//! `session.post(url, json=todo)`. A response includes its body, so `json` is not async here.
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

    // The server echoes the body.
    let post = Request::post(format!("{server}/post")).json(&todos[0]);
    let echoed: Todo = fetcher.fetch(post).await?.error_for_status()?.json()?;
    assert_eq!(echoed, todos[0]);

    // Unexpected JSON is an error with the position as its source.
    let page = fetcher.fetch(format!("{server}/page/1")).await?;
    let error = page.json::<Todo>().expect_err("a page is not a todo");
    println!(
        "{error}: {}",
        std::error::Error::source(&error).expect("a position")
    );
    assert_eq!(error.kind(), ErrorKind::Json);
    Ok(())
}

//! Attaches a value to each input and gets it back with the result.
//!
//! asyncio: `as_completed` loses the input, so the fetch is wrapped in a coroutine that returns
//! `(product, result)`. Here the input is the pair `(product, url)`. The product may be borrowed.
//!
//! ```text
//! cargo run --release --example tagged
//! ```

mod demo;

use std::collections::HashMap;

use fanout::Fetcher;

struct Product {
    name: &'static str,
    url: String,
}

#[tokio::main]
async fn main() {
    let server = demo::start().await;
    let product = |name, path| Product {
        name,
        url: format!("{server}{path}"),
    };
    let products = [
        product("kettle", "/delay/600"),
        product("teapot", "/status/418"),
        product("cup", "/bytes/100"),
    ];

    let fetcher = Fetcher::new();
    let mut found = HashMap::new();
    let mut done = fetcher.as_completed(products.iter().map(|product| (product, &product.url)));
    while let Some(completed) = done.next().await {
        let product: &Product = completed.tag;
        match completed.result {
            Ok(response) => {
                println!("{}: {}", product.name, response.status());
                found.insert(product.name, response.status().as_u16());
            }
            Err(error) => println!("{}: {error}", product.name),
        }
    }

    assert_eq!(
        found,
        HashMap::from([("kettle", 200), ("teapot", 418), ("cup", 200)])
    );
}

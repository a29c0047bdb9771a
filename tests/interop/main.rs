//! Tests against the real servers and proxies that `scripts/interop` starts. `cargo test` does not
//! build this target.

#![allow(unreachable_pub)]

mod connection_closes;
mod endpoint;
mod httpbin;
mod proxies;
mod suite;
mod web;

use std::process::ExitCode;

use endpoint::{Endpoint, environment_setting};
use suite::Suite;

#[tokio::main]
async fn main() -> ExitCode {
    let mut suite = Suite::default();
    let mut proxied_endpoints = Vec::new();
    for endpoint in environment_setting("FANOUT_INTEROP_ENDPOINTS").split_whitespace() {
        let endpoint = Endpoint::parse(endpoint);
        match endpoint.name {
            "httpbin" => httpbin::run(&mut suite, &endpoint).await,
            name => {
                web::run(&mut suite, &endpoint).await;
                if name == "nginx" {
                    connection_closes::run(&mut suite, &endpoint).await;
                    proxied_endpoints.push(endpoint);
                }
            }
        }
    }
    proxies::run(&mut suite, &proxied_endpoints).await;
    suite.report()
}

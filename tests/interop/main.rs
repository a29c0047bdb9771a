//! The crate against real servers and proxies, which `scripts/interop` starts. Only that runs it: plain `cargo test` does
//! not build it.

#![allow(unreachable_pub)]

mod endings;
mod httpbin;
mod proxies;
mod site;
mod suite;
mod web;

use std::process::ExitCode;

use site::{Site, setting};
use suite::Suite;

#[tokio::main]
async fn main() -> ExitCode {
    let mut suite = Suite::default();
    let mut behind_proxies = Vec::new();
    for site in setting("FANOUT_INTEROP").split_whitespace() {
        let site = Site::parse(site);
        match site.name {
            "httpbin" => httpbin::run(&mut suite, &site).await,
            name => {
                web::run(&mut suite, &site).await;
                if name == "nginx" {
                    endings::run(&mut suite, &site).await;
                    behind_proxies.push(site);
                }
            }
        }
    }
    proxies::run(&mut suite, &behind_proxies).await;
    suite.report()
}

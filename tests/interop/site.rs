//! What `scripts/interop` started, as it says in the environment.

use std::path::PathBuf;
use std::sync::LazyLock;

use fanout::{Fetcher, FetcherBuilder, Response};

static AUTHORITY: LazyLock<Vec<u8>> =
    LazyLock::new(|| std::fs::read(state().join("ca.pem")).unwrap());

/// A server, under the URL of one of its protocols.
#[derive(Copy, Clone, Debug)]
pub struct Site {
    pub name: &'static str,
    origin: &'static str,
}

impl Site {
    /// Of `name=origin`.
    pub fn parse(text: &'static str) -> Self {
        let (name, origin) = text.split_once('=').expect("name=origin");
        Self { name, origin }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    pub fn protocol(&self) -> &'static str {
        if self.origin.starts_with("https") {
            "http/1.1, tls"
        } else {
            "http/1.1"
        }
    }
}

/// A setting that `scripts/interop` makes.
///
/// # Panics
///
/// If it is not there: then nobody started any servers.
pub fn setting(name: &str) -> &'static str {
    let value = std::env::var(name).unwrap_or_else(|_| panic!("no {name}: run scripts/interop"));
    value.leak()
}

/// The folder of the run: pids of the servers, and how to start them.
pub fn state() -> PathBuf {
    setting("FANOUT_INTEROP_STATE").into()
}

/// Trusts the authority of the run.
pub fn builder() -> FetcherBuilder {
    Fetcher::builder().add_root_certificates(AUTHORITY.as_slice())
}

pub fn fetcher() -> Fetcher {
    builder().build().unwrap()
}

/// The text of the servers' files: the numbers from 0 on, eight bytes each.
pub fn numbers(bytes: usize) -> Vec<u8> {
    let lines = (0..bytes / 8).map(|n| format!("{n:07}\n"));
    lines.collect::<String>().into_bytes()
}

pub fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    let value = response.headers().get(name);
    value.map_or("", |value| value.to_str().unwrap())
}

#[track_caller]
pub fn assert_numbers(response: &Response, bytes: usize) {
    assert_eq!(response.status(), 200);
    // Not `assert_eq`: nobody wants to read them.
    assert!(
        response.bytes()[..] == numbers(bytes),
        "other bytes: {}",
        response.bytes().len()
    );
}

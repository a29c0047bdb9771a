//! What `scripts/interop` started, as it says in the environment.

use std::path::PathBuf;
use std::sync::LazyLock;

use fanout::{Fetcher, FetcherBuilder, Response};
use http::Version;

static AUTHORITY: LazyLock<Vec<u8>> =
    LazyLock::new(|| std::fs::read(state().join("ca.pem")).unwrap());

/// A server, under the URL of one of its protocols.
#[derive(Copy, Clone, Debug)]
pub struct Site {
    pub name: &'static str,
    origin: &'static str,
    /// How it is reached.
    way: &'static str,
    /// The version of HTTP that is spoken with it.
    version: &'static str,
}

impl Site {
    /// Of `name=origin`.
    pub fn parse(text: &'static str) -> Self {
        let (name, origin) = text.split_once('=').expect("name=origin");
        Self {
            name,
            origin,
            way: "",
            version: "",
        }
    }

    /// The same, with the version of HTTP that it and the crate agree on.
    pub async fn agreed(self) -> Self {
        let answer = fetcher().fetch(self.url("/")).await;
        let version = match answer.as_ref().map(Response::version) {
            Ok(Version::HTTP_2) => "http/2",
            Ok(_) => "http/1.1",
            Err(_) => "none",
        };
        Self { version, ..self }
    }

    pub fn is_http2(&self) -> bool {
        self.version == "http/2"
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    /// The same, through a proxy, which the cases are then those of.
    pub fn behind(&self, proxy: &'static str, scheme: &'static str) -> Self {
        Self {
            name: proxy,
            way: scheme,
            ..*self
        }
    }

    pub fn is_tls(&self) -> bool {
        self.origin.starts_with("https")
    }

    pub fn protocol(&self) -> String {
        let tls = if self.is_tls() { "tls" } else { "clear" };
        match self.way {
            "" => format!("{} {tls}", self.version),
            way => format!("{way}, {} {tls}", self.version),
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

/// Trusts the authority of the run, and goes through no proxy of the environment.
pub fn builder() -> FetcherBuilder {
    Fetcher::builder()
        .http1_only()
        .no_proxy()
        .add_root_certificates(AUTHORITY.as_slice())
}

pub fn fetcher() -> Fetcher {
    builder().build().unwrap()
}

/// The text of the servers' files: the numbers from 0 on, eight bytes each.
pub fn numbers(bytes: usize) -> &'static [u8] {
    static ALL: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let lines = (0..1_250_000).map(|n| format!("{n:07}\n"));
        lines.collect::<String>().into_bytes()
    });
    &ALL[..bytes]
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
        response.bytes()[..] == *numbers(bytes),
        "other bytes: {}",
        response.bytes().len()
    );
}

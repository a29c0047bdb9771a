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
    version: Version,
}

impl Site {
    /// Of `name,version,origin`.
    pub fn parse(text: &'static str) -> Self {
        let mut parts = text.splitn(3, ',');
        let mut part = || parts.next().expect("name,version,origin");
        Self {
            name: part(),
            way: "",
            version: match part() {
                "http/1.1" => Version::HTTP_11,
                "http/2" => Version::HTTP_2,
                other => panic!("no version of HTTP: {other}"),
            },
            origin: part(),
        }
    }

    pub fn is_http2(&self) -> bool {
        self.version == Version::HTTP_2
    }

    /// Speaks the version of the site, trusts the authority of the run, and goes through no proxy of the environment.
    pub fn builder(&self) -> FetcherBuilder {
        let builder = Fetcher::builder()
            .no_proxy()
            .add_root_certificates(AUTHORITY.as_slice());
        match (self.is_http2(), self.is_tls()) {
            (false, _) => builder.http1_only(),
            (true, true) => builder,
            (true, false) => builder.http2_prior_knowledge(),
        }
    }

    pub fn fetcher(&self) -> Fetcher {
        self.builder().build().unwrap()
    }

    /// It came over the protocol that the row is of.
    #[track_caller]
    pub fn assert_version(&self, response: &Response) {
        assert_eq!(response.version(), self.version);
    }

    /// It is so much of the text of the servers' files.
    #[track_caller]
    pub fn assert_numbers(&self, response: &Response, bytes: usize) {
        assert_eq!(response.status(), 200);
        self.assert_version(response);
        // Not `assert_eq`: nobody wants to read them.
        assert!(
            response.bytes()[..] == *numbers(bytes),
            "other bytes: {}",
            response.bytes().len()
        );
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
        let version = if self.is_http2() {
            "http/2"
        } else {
            "http/1.1"
        };
        match self.way {
            "" => format!("{version} {tls}"),
            way => format!("{way}, {version} {tls}"),
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

//! The servers that `scripts/interop` started, read from the environment.

use std::path::PathBuf;
use std::sync::LazyLock;

use fanout::{Fetcher, FetcherBuilder, Response};
use http::Version;

static AUTHORITY: LazyLock<Vec<u8>> =
    LazyLock::new(|| std::fs::read(state_dir().join("ca.pem")).unwrap());

/// The origin of a server for one HTTP version, with or without TLS.
#[derive(Copy, Clone, Debug)]
pub struct Endpoint {
    pub name: &'static str,
    origin: &'static str,
    /// The scheme of the proxy in between, or an empty string.
    proxy_scheme: &'static str,
    /// The HTTP version that this origin serves.
    version: Version,
}

impl Endpoint {
    /// Parses `name,version,origin`.
    pub fn parse(text: &'static str) -> Self {
        let mut parts = text.splitn(3, ',');
        let mut part = || parts.next().expect("name,version,origin");
        Self {
            name: part(),
            proxy_scheme: "",
            version: match part() {
                "http/1.1" => Version::HTTP_11,
                "http/2" => Version::HTTP_2,
                other => panic!("unknown HTTP version: {other}"),
            },
            origin: part(),
        }
    }

    pub fn is_http2(&self) -> bool {
        self.version == Version::HTTP_2
    }

    /// Returns a builder that uses this endpoint's HTTP version, trusts the test certificate
    /// authority and ignores proxies of the environment.
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

    /// Asserts that the response has this endpoint's HTTP version.
    #[track_caller]
    pub fn assert_version(&self, response: &Response) {
        assert_eq!(response.version(), self.version);
    }

    /// Asserts that the body is the first `bytes` bytes of the numbered lines.
    #[track_caller]
    pub fn assert_numbered_lines(&self, response: &Response, bytes: usize) {
        assert_eq!(response.status(), 200);
        self.assert_version(response);
        // `assert_eq` would print both bodies.
        assert!(
            response.bytes()[..] == *numbered_lines(bytes),
            "unexpected body of {} bytes",
            response.bytes().len()
        );
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    /// Returns the endpoint as reached through a proxy. The proxy's name replaces the server's.
    pub fn through_proxy(&self, proxy: &'static str, scheme: &'static str) -> Self {
        Self {
            name: proxy,
            proxy_scheme: scheme,
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
        match self.proxy_scheme {
            "" => format!("{version} {tls}"),
            scheme => format!("{scheme}, {version} {tls}"),
        }
    }
}

/// Returns an environment variable that `scripts/interop` sets.
///
/// # Panics
///
/// If the variable is not set.
pub fn environment_setting(name: &str) -> &'static str {
    let value =
        std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run scripts/interop"));
    value.leak()
}

/// Returns the temporary folder with the servers' process IDs and start scripts.
pub fn state_dir() -> PathBuf {
    environment_setting("FANOUT_INTEROP_STATE").into()
}

/// Returns the first `bytes` bytes of the servers' files: numbered lines of eight bytes from 0 on.
pub fn numbered_lines(bytes: usize) -> &'static [u8] {
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

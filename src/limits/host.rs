//! What is particular to one host.

use std::fmt;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::Rate;
use crate::credentials::{self, Reason};

/// The limits, headers and credentials of one origin, which no other origin is sent.
///
/// A header that is not valid is reported when the Fetcher is built. `Debug` shows the names of the
/// headers, never a value.
///
/// ```
/// use fanout::{Host, Rate};
///
/// let host = Host::new()
///     .bearer("token")
///     .header("x-client", "nightly")
///     .concurrency(4)
///     .rate(Rate::per_second(10));
/// ```
#[derive(Clone, Default, PartialEq)]
pub struct Host {
    pub(crate) headers: HeaderMap,
    pub(crate) mistake: Option<Reason>,
    pub(crate) concurrency: Option<usize>,
    pub(crate) rate: Option<Rate>,
}

impl Host {
    /// Nothing in particular.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a header of every request to this origin that does not set it itself.
    #[must_use]
    pub fn header<K, V>(self, name: K, value: V) -> Self
    where
        K: TryInto<HeaderName>,
        V: TryInto<HeaderValue>,
    {
        self.set(credentials::header(name, value))
    }

    /// Sets `Authorization` to this bearer token.
    #[must_use]
    pub fn bearer(self, token: impl AsRef<str>) -> Self {
        let value = credentials::bearer(token.as_ref());
        self.set(value.map(|value| (header::AUTHORIZATION, value)))
    }

    /// Sets `Authorization` to this user and password; the user name must hold no colon.
    #[must_use]
    pub fn basic(self, user: impl AsRef<str>, password: impl AsRef<str>) -> Self {
        let (user, password) = (user.as_ref().as_bytes(), password.as_ref().as_bytes());
        let value = credentials::basic(user, password);
        self.set(value.map(|value| (header::AUTHORIZATION, value)))
    }

    fn set(mut self, header: Result<(HeaderName, HeaderValue), Reason>) -> Self {
        let set = header.and_then(|(name, value)| {
            let set = self.headers.try_insert(name, value);
            set.map_err(|_| "there are too many headers".into())
        });
        if let Err(reason) = set {
            self.mistake.get_or_insert(reason);
        }
        self
    }

    /// How many requests to this origin may be on the wire at once. No limit by default.
    ///
    /// # Panics
    ///
    /// If it is zero.
    #[must_use]
    #[track_caller]
    pub fn concurrency(self, concurrency: usize) -> Self {
        assert_ne!(
            concurrency, 0,
            "a concurrency of zero would never start anything"
        );
        Self {
            concurrency: Some(concurrency),
            ..self
        }
    }

    /// How many requests to this origin may start in a time. No limit by default.
    #[must_use]
    pub fn rate(self, rate: Rate) -> Self {
        Self {
            rate: Some(rate),
            ..self
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.keys().map(HeaderName::as_str).collect();
        f.debug_struct("Host")
            .field("headers", &names)
            .field("mistake", &self.mistake)
            .field("concurrency", &self.concurrency)
            .field("rate", &self.rate)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_names_and_no_value() {
        let host = Host::new()
            .header("x-plain", "s3cr3t")
            .basic("s3cr3t", "s3cr3t");
        let shown = format!("{host:?} {:?}", host.clone().bearer("s3cr3t"));
        assert!(
            !shown.contains("s3cr3t") && !shown.contains("czNj"),
            "{shown}"
        );
        assert!(shown.contains("x-plain") && shown.contains("authorization"));
    }

    #[test]
    fn the_first_invalid_header_is_remembered() {
        let host = Host::new()
            .header("x-a", "s3cr3t\n")
            .header("b b", "x")
            .header("x-c", "y");
        let mistake = host.mistake.as_deref().unwrap();
        assert!(
            mistake.contains("\"x-a\"") && !mistake.contains("s3cr3t"),
            "{mistake}"
        );
        assert_eq!(host.headers["x-c"], "y");
        assert!(Host::new().bearer("").mistake.is_some());
    }

    #[test]
    #[should_panic(expected = "concurrency of zero")]
    fn a_concurrency_of_zero_panics() {
        let _ = Host::new().concurrency(0);
    }
}

//! Replaces `cookies` in a build without the `cookies` feature: no cookie is stored or sent.

use http::header::HeaderMap;
use url::Url;

#[derive(Debug, Default)]
pub(crate) struct CookieJar {}

impl CookieJar {
    pub(crate) fn fresh(&self) -> Self {
        Self {}
    }

    pub(super) fn apply(&self, _headers: &mut HeaderMap, _url: &Url) {}

    pub(super) fn store(&self, _headers: &HeaderMap, _url: &Url) {}
}

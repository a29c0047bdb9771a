//! Replaces the module `cookies` in a build without the `cookies` feature: no cookie is stored or
//! sent.

use http::header::HeaderMap;
use url::Url;

#[derive(Debug, Default)]
pub(crate) struct CookieJar {}

impl CookieJar {
    pub(crate) fn to_empty_jar(&self) -> Self {
        Self {}
    }

    pub(super) fn add_cookie_header(&self, _headers: &mut HeaderMap, _url: &Url) {}

    pub(super) fn store_cookies(&self, _headers: &HeaderMap, _url: &Url) {}
}

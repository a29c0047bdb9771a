//! The URL of a request, or the invalid text that was passed as a URL.

use std::fmt;
use std::sync::Arc;

use url::{Position, Url};

use crate::redacted_url::RedactedUrl;

/// The URL of a request, or the invalid text that was passed as a URL. Neither of the two contains
/// userinfo.
#[derive(Clone)]
pub(crate) enum UrlOrInvalidText {
    Url(Arc<Url>),
    /// Text that is not a valid `http` or `https` URL.
    InvalidText(Arc<str>),
}

impl UrlOrInvalidText {
    pub(crate) fn as_str(&self) -> &str {
        match self {
            UrlOrInvalidText::Url(url) => url.as_str(),
            UrlOrInvalidText::InvalidText(text) => text,
        }
    }

    pub(crate) fn url(&self) -> Option<&Arc<Url>> {
        match self {
            UrlOrInvalidText::Url(url) => Some(url),
            UrlOrInvalidText::InvalidText(_) => None,
        }
    }
}

impl From<Arc<Url>> for UrlOrInvalidText {
    fn from(url: Arc<Url>) -> Self {
        UrlOrInvalidText::Url(url)
    }
}

/// Writes a URL without the values of its query parameters. Invalid text is quoted and escaped,
/// because it may contain any character.
impl fmt::Display for UrlOrInvalidText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UrlOrInvalidText::Url(url) => fmt::Display::fmt(&RedactedUrl(url.as_str()), f),
            UrlOrInvalidText::InvalidText(text) => fmt::Debug::fmt(&RedactedUrl(text), f),
        }
    }
}

/// The origin of a URL as text: `scheme://host[:port]`.
pub(crate) fn origin(url: &Url) -> &str {
    &url[..Position::BeforePath]
}

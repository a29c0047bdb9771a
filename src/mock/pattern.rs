//! The pattern that selects the requests to which a rule of a mock applies.

use std::fmt;

use http::Method;
use url::Position;

use super::request::MockRequest;
use crate::redacted_url::RedactedUrl;
use crate::request::Request;

/// An optional method and a URL in which each `*` matches any text.
pub(super) struct RequestPattern {
    method: Option<Method>,
    url_pattern: String,
}

impl RequestPattern {
    #[track_caller]
    pub(super) fn parse(text: &str) -> Self {
        let (method, url) = match text.split_once(' ') {
            Some((method, url)) => match method.parse() {
                Ok(method) => (Some(method), url),
                Err(_) => panic!("{method:?} is not a method"),
            },
            None => (None, text),
        };
        let url = if url.contains('*') {
            url.to_owned()
        } else {
            match Request::get(url).build().url() {
                Some(url) => url[..Position::AfterQuery].to_owned(),
                None => panic!(
                    "{:?} is neither a URL nor a pattern with `*`",
                    RedactedUrl(url)
                ),
            }
        };
        Self {
            method,
            url_pattern: url,
        }
    }

    pub(super) fn matches(&self, request: &MockRequest) -> bool {
        self.method
            .as_ref()
            .is_none_or(|method| method == request.method())
            && matches_wildcards(&self.url_pattern, request.url())
    }
}

/// Whether `text` matches `pattern`, in which each `*` matches any text.
///
/// Each part of the pattern between two stars is matched at its first occurrence in the rest of
/// `text`. The part after the last star must end `text`.
fn matches_wildcards(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(head) else {
        return false;
    };
    let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    for piece in middle.split('*') {
        match text.find(piece) {
            Some(at) => text = &text[at + piece.len()..],
            None => return false,
        }
    }
    text.ends_with(tail)
}

/// Shows the URL without the values of its query parameters.
impl fmt::Debug for RequestPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.method {
            Some(method) => write!(f, "{method} {}", RedactedUrl(&self.url_pattern)),
            None => fmt::Display::fmt(&RedactedUrl(&self.url_pattern), f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_matches_any_text() {
        for (pattern, text, is_match) in [
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("*", "", true),
            ("a*", "a/b/c", true),
            ("a*c", "abbc", true),
            ("a*c", "ac", true),
            ("a*a", "a", false),
            ("*b*", "abc", true),
            ("*b*b", "abab", true),
            ("*b*b", "ab", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "acb", false),
        ] {
            assert_eq!(
                matches_wildcards(pattern, text),
                is_match,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn a_url_pattern_is_normalized() {
        let pattern = RequestPattern::parse("GET HTTP://A.example:80?q#there");
        assert_eq!(format!("{pattern:?}"), "GET http://a.example/?q");
    }

    #[test]
    #[should_panic(expected = "neither a URL nor a pattern")]
    fn a_relative_url_panics() {
        RequestPattern::parse("/path");
    }
}

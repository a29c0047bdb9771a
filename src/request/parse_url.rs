//! Parses URLs. Each thread caches the last origin that it parsed.

use std::cell::RefCell;

use url::{Position, Url};

use crate::credentials::InvalidReason;

const NO_HTTP_SCHEME_REASON: &str = "the URL does not begin with \"https://\" or \"http://\"";

thread_local! {
    /// The origin of the last URL that this thread parsed.
    static LAST_PARSED_ORIGIN: RefCell<Option<CachedOrigin>> = const { RefCell::new(None) };
}

/// The maximum capacity, in bytes, that [`CachedOrigin::spaces_and_path`] keeps after a URL is
/// parsed.
const MAX_SPACES_AND_PATH_CAPACITY: usize = 4 << 10;

struct CachedOrigin {
    /// A URL that consists of the origin only. It has no path, query or fragment, so the cache
    /// holds no secret.
    origin_url: Url,
    /// A reused buffer. It holds one space for each byte of the origin and, while a URL is parsed,
    /// the path of the URL.
    spaces_and_path: String,
}

/// Parses a URL and checks its scheme. Whitespace around the URL is removed, as in the URL
/// standard.
///
/// Consecutive URLs of a batch mostly have the same origin, so a URL that begins with the cached
/// origin reuses the parsed origin. Parsing and formatting an IPv4 address takes longer than
/// parsing the rest of a URL.
pub(super) fn parse_url(text: &str) -> Result<Url, InvalidReason> {
    let text = text.trim_ascii();
    // The URL parser would remove line breaks within the text and so join two lines into one URL.
    if text.bytes().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        return Err("the URL holds a line break or a NUL".into());
    }
    if let Some(url) =
        LAST_PARSED_ORIGIN.with_borrow_mut(|last| last.as_mut()?.parse_url_of_same_origin(text))
    {
        return Ok(url);
    }
    match Url::parse(text) {
        Ok(url) => {
            require_http_scheme(&url, text)?;
            LAST_PARSED_ORIGIN.set(origin_to_cache(&url));
            Ok(url)
        }
        Err(url::ParseError::RelativeUrlWithoutBase) => Err(NO_HTTP_SCHEME_REASON.into()),
        Err(error) => Err(format!("the URL is not valid: {error}").into()),
    }
}

/// Returns the cache entry for the origin of `url`. Returns `None` if `url` has userinfo, which
/// other URLs must not reuse.
fn origin_to_cache(url: &Url) -> Option<CachedOrigin> {
    let has_user_info = !url.username().is_empty() || url.password().is_some();
    if has_user_info {
        return None;
    }
    let mut origin = url.clone();
    origin.set_fragment(None);
    origin.set_query(None);
    origin.set_path("");
    Some(CachedOrigin {
        spaces_and_path: " ".repeat(origin[..Position::BeforePath].len()),
        origin_url: origin,
    })
}

impl CachedOrigin {
    /// Parses `text` if it is the cached origin followed by an absolute path. Otherwise, returns
    /// `None`.
    ///
    /// Resolving the path against the origin gives the same URL as parsing the whole text (URL
    /// standard, "path absolute state").
    fn parse_url_of_same_origin(&mut self, text: &str) -> Option<Url> {
        let path = text.strip_prefix(&self.origin_url[..Position::BeforePath])?;
        // A path that begins with two slashes would be parsed as another host. The URL parser
        // removes tabs, so a tab between the slashes does not prevent this.
        let is_path = match path.as_bytes() {
            [b'/'] => true,
            [b'/', next, ..] => next.is_ascii_graphic() && !matches!(next, b'/' | b'\\'),
            _ => false,
        };
        if !is_path {
            return None;
        }
        // The parser skips leading spaces, but allocates as many bytes as its input has. The spaces
        // make the input as long as the whole URL, so the allocation has the right length.
        let spaces_len = self.spaces_and_path.len();
        self.spaces_and_path.push_str(path);
        let url = self.origin_url.join(&self.spaces_and_path).ok();
        self.spaces_and_path.truncate(spaces_len);
        self.spaces_and_path.shrink_to(MAX_SPACES_AND_PATH_CAPACITY);
        url
    }
}

pub(super) fn require_http_scheme(url: &Url, text: &str) -> Result<(), InvalidReason> {
    match url.scheme() {
        "http" | "https" => Ok(()),
        // Without `://`, the scheme that `Url` finds may be a host name ("host:80") or a user name
        // ("user:password@host"), so the error does not name it.
        scheme if text.contains("://") && url.has_host() => {
            Err(format!("the scheme {scheme:?} is not supported, only https and http").into())
        }
        _ => Err(NO_HTTP_SCHEME_REASON.into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASES: [&str; 6] = [
        "http://a.example/",
        "https://a.example:8443/x",
        "http://127.0.0.1:8080",
        "http://[::1]/",
        "http://a.example:80/",
        "https://xn--bcher-kva.example/?q",
    ];

    #[test]
    fn text_that_continues_the_host_does_not_reuse_the_origin() {
        let mut cache = origin_to_cache(&Url::parse("http://a.example").unwrap()).unwrap();
        for path in [
            "//b/", "/\\b/", "/\t/b/", "", "b", "@b/", ":81/", ".b/", "?q", "#f", "\\b",
        ] {
            let text = format!("http://a.example{path}");
            assert_eq!(cache.parse_url_of_same_origin(&text), None, "{text:?}");
        }
    }

    #[test]
    fn user_info_is_not_cached() {
        assert!(parse_url("http://user:s3cr3t@u.example/").is_ok());
        let is_cached = LAST_PARSED_ORIGIN.with_borrow(|last| {
            last.as_ref()
                .is_some_and(|cache| cache.origin_url.password().is_some())
        });
        assert!(!is_cached);
        let plain = parse_url("http://u.example/next").unwrap();
        assert_eq!((plain.username(), plain.password()), ("", None));
    }

    #[test]
    fn only_the_origin_is_cached() {
        assert!(parse_url("http://k.example/path?token=s3cr3t#part").is_ok());
        LAST_PARSED_ORIGIN.with_borrow(|last| {
            let cache = last.as_ref().unwrap();
            assert_eq!(cache.origin_url.as_str(), "http://k.example/");
            assert_eq!(cache.spaces_and_path.trim_start(), "");
        });
    }

    proptest! {
        #[test]
        fn reusing_an_origin_gives_the_same_url(
            before in 0..BASES.len(),
            prefix in 0..BASES.len(),
            path in "(/|[/.%?#@:\\\\\t a-cA-C0é\u{0}-\u{7f}]){0,12}",
        ) {
            let text = format!("{}{path}", BASES[prefix]);
            let parsed_alone = Url::parse(&text);
            LAST_PARSED_ORIGIN.set(None);
            let _ = parse_url(BASES[before]);
            match parse_url(&text) {
                Ok(url) => prop_assert_eq!(Ok(url), parsed_alone),
                Err(_) => {
                    prop_assert!(parsed_alone.is_err() || text.trim_ascii().contains(['\r', '\n', '\0']));
                }
            }
        }
    }
}

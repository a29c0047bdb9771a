//! From text to URL, by one parser.

use std::cell::RefCell;

use url::{Position, Url};

use crate::credentials::InvalidReason;

const NO_SCHEME: &str = "the URL does not begin with \"https://\" or \"http://\"";

thread_local! {
    /// The origin parsed last on this thread, if the next URL may lean on it.
    static LAST_ORIGIN: RefCell<Option<OriginCache>> = const { RefCell::new(None) };
}

/// So much memory is kept for the next path.
const MAX_PADDING_CAPACITY: usize = 4 << 10;

struct OriginCache {
    /// The origin alone, so that nothing else of the URL is kept.
    origin: Url,
    /// As many padding as the origin has bytes, and room for a path.
    padding: String,
}

/// URLs of one origin mostly come one after another. To parse an IPv4 address and write it out again costs more than all
/// the rest of a URL, so the origin is taken over from the one before if it is the same to the letter.
pub(super) fn parse_url(text: &str) -> Result<Url, InvalidReason> {
    // The URL standard drops line breaks silently, and so joins what were two lines.
    if text.bytes().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        return Err("the URL holds a line break or a NUL".into());
    }
    if let Some(url) = LAST_ORIGIN.with_borrow_mut(|last| last.as_mut()?.parse(text)) {
        return Ok(url);
    }
    match Url::parse(text) {
        Ok(url) => {
            check_scheme(&url, text)?;
            LAST_ORIGIN.set(cacheable_origin(&url));
            Ok(url)
        }
        Err(url::ParseError::RelativeUrlWithoutBase) => Err(NO_SCHEME.into()),
        Err(error) => Err(format!("the URL is not valid: {error}").into()),
    }
}

/// User-info is not leant on: it belongs to one request.
fn cacheable_origin(url: &Url) -> Option<OriginCache> {
    let is_bare = url.username().is_empty() && url.password().is_none();
    is_bare.then(|| {
        let mut origin = url.clone();
        origin.set_fragment(None);
        origin.set_query(None);
        origin.set_path("");
        OriginCache {
            padding: " ".repeat(origin[..Position::BeforePath].len()),
            origin,
        }
    })
}

impl OriginCache {
    /// Parses what is this origin, to the letter, and an absolute path. The path is resolved against the origin, which
    /// gives the same URL (URL standard, "path absolute state").
    fn parse(&mut self, text: &str) -> Option<Url> {
        let path = text.strip_prefix(&self.origin[..Position::BeforePath])?;
        // Two slashes would begin another host. So would two with a tab between them, which the standard drops.
        let is_path = match path.as_bytes() {
            [b'/'] => true,
            [b'/', next, ..] => next.is_ascii_graphic() && !matches!(next, b'/' | b'\\'),
            _ => false,
        };
        if !is_path {
            return None;
        }
        // The parser sets aside as much memory as its input is long, and drops leading padding: with these in the
        // origin's place the URL is written where it fits exactly, instead of growing three times.
        let padding = self.padding.len();
        self.padding.push_str(path);
        let url = self.origin.join(&self.padding).ok();
        self.padding.truncate(padding);
        self.padding.shrink_to(MAX_PADDING_CAPACITY);
        url
    }
}

pub(super) fn check_scheme(url: &Url, text: &str) -> Result<(), InvalidReason> {
    match url.scheme() {
        "http" | "https" => Ok(()),
        // In "host:80" and "user:password@host" it is no scheme that comes first.
        scheme if text.contains("://") && url.has_host() => {
            Err(format!("the scheme {scheme:?} is not supported, only https and http").into())
        }
        _ => Err(NO_SCHEME.into()),
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
    fn what_begins_another_host_does_not_lean() {
        let mut base = cacheable_origin(&Url::parse("http://a.example").unwrap()).unwrap();
        for path in [
            "//b/", "/\\b/", "/\t/b/", "", "b", "@b/", ":81/", ".b/", "?q", "#f", "\\b",
        ] {
            let text = format!("http://a.example{path}");
            assert_eq!(base.parse(&text), None, "{text:?}");
        }
    }

    #[test]
    fn user_info_is_not_leant_on() {
        assert!(parse_url("http://user:s3cr3t@u.example/").is_ok());
        let is_kept = LAST_ORIGIN.with_borrow(|last| {
            last.as_ref()
                .is_some_and(|base| base.origin.password().is_some())
        });
        assert!(!is_kept);
        let plain = parse_url("http://u.example/next").unwrap();
        assert_eq!((plain.username(), plain.password()), ("", None));
    }

    #[test]
    fn nothing_but_the_origin_is_kept() {
        assert!(parse_url("http://k.example/path?token=s3cr3t#part").is_ok());
        LAST_ORIGIN.with_borrow(|last| {
            let base = last.as_ref().unwrap();
            assert_eq!(base.origin.as_str(), "http://k.example/");
            assert_eq!(base.padding.trim_start(), "");
        });
    }

    proptest! {
        #[test]
        fn leaning_changes_nothing(
            before in 0..BASES.len(), prefix in 0..BASES.len(), path in "(/|[/.%?#@:\\\\\t a-cA-C0é\u{0}-\u{7f}]){0,12}",
        ) {
            let text = format!("{}{path}", BASES[prefix]);
            let alone = Url::parse(&text);
            LAST_ORIGIN.set(None);
            let _ = parse_url(BASES[before]);
            match parse_url(&text) {
                Ok(url) => prop_assert_eq!(Ok(url), alone),
                Err(_) => prop_assert!(alone.is_err() || text.contains(['\r', '\n', '\0'])),
            }
        }
    }
}

//! Resolves the URL references in response headers, such as `Location` and `Link`.

use std::borrow::Cow;
use std::fmt::Write as _;

use url::{ParseError, Url};

use crate::credentials::remove_user_info;

/// Returns a header value as text. Bytes that are not UTF-8 are percent-encoded, as browsers encode
/// them in a `Location`.
pub(crate) fn percent_encode_non_utf8(value: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(value) {
        return text.into();
    }
    let mut text = String::with_capacity(value.len() + 16);
    for chunk in value.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a `String` never fails.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text.into()
}

/// Resolves a URL reference against `base`.
///
/// The userinfo of the reference is removed: otherwise one server could choose the credentials that
/// another server receives.
pub(crate) fn resolve_url_without_user_info(
    reference: &str,
    base: &Url,
) -> Result<Url, ParseError> {
    let mut url = base.join(reference)?;
    remove_user_info(&mut url);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_utf_8_are_percent_encoded() {
        for (value, text) in [
            (&b"/plain?a=%20"[..], "/plain?a=%20"),
            ("/caf\u{e9}".as_bytes(), "/caf\u{e9}"),
            (b"/caf\xe9", "/caf%E9"),
            (b"/\xff\xfe/\xc3\xa9\xc3", "/%FF%FE/\u{e9}%C3"),
            (b"/\xe6\x97/\xe6\x97\xa5", "/%E6%97/\u{65e5}"),
        ] {
            assert_eq!(percent_encode_non_utf8(value), text);
        }
    }

    #[test]
    fn encoded_bytes_are_kept_in_path_query_and_fragment_but_invalid_in_a_host() {
        let base = Url::parse("http://a.example/x/y").unwrap();
        for (value, url) in [
            (&b"caf\xe9"[..], Some("http://a.example/x/caf%E9")),
            (
                "/\u{e9}?\u{e9}#\u{e9}".as_bytes(),
                Some("http://a.example/%C3%A9?%C3%A9#%C3%A9"),
            ),
            (
                b"?q=\xb0\xa1&r=\xc3\xa9#\xe9",
                Some("http://a.example/x/y?q=%B0%A1&r=%C3%A9#%E9"),
            ),
            (
                "http://b\u{fc}cher.example/".as_bytes(),
                Some("http://xn--bcher-kva.example/"),
            ),
            (b"http://b\xfccher.example/", None),
            (
                b"http://us\xe9r:p\xe9@b.example/",
                Some("http://b.example/"),
            ),
        ] {
            let resolved = resolve_url_without_user_info(&percent_encode_non_utf8(value), &base);
            assert_eq!(resolved.ok().as_ref().map(Url::as_str), url, "{value:?}");
        }
    }
}

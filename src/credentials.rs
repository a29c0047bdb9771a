//! Builds the headers of credentials, and keeps credentials out of logs and error messages.

use std::borrow::Cow;
use std::fmt;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use url::Url;

use crate::redacted_url::{RedactedUrl, with_redacted_urls};

/// Why a header or a credential is invalid. The message never quotes the invalid text, because it
/// may be a secret.
pub(crate) type InvalidReason = Cow<'static, str>;

/// Returns the value of `Authorization` for a user name and password (RFC 7617).
pub(crate) fn basic_authorization(
    user: &[u8],
    password: &[u8],
) -> Result<HeaderValue, InvalidReason> {
    if user.contains(&b':') {
        return Err("the user name of basic authorization holds a colon".into());
    }
    let mut text = String::from("Basic ");
    push_base64(&mut text, &[user, b":", password].concat());
    sensitive_header_value(text).ok_or_else(|| "basic authorization cannot be a header".into())
}

/// Returns the value of `Authorization` for a bearer token (RFC 6750).
pub(crate) fn bearer_authorization(token: &str) -> Result<HeaderValue, InvalidReason> {
    if token.is_empty() {
        return Err("the bearer token is empty".into());
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(
            "the bearer token holds a space, a line break or another character \
                    that it must not hold"
                .into(),
        );
    }
    sensitive_header_value(format!("Bearer {token}"))
        .ok_or_else(|| "the bearer token cannot be a header".into())
}

fn sensitive_header_value(text: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Returns the percent-decoded user name and password of `url`, or `None` if `url` has neither.
pub(crate) fn decoded_user_info(url: &Url) -> Option<(Vec<u8>, Vec<u8>)> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let user = percent_decode_str(url.username()).collect();
    let password = percent_decode_str(url.password().unwrap_or_default()).collect();
    Some((user, password))
}

/// Removes the userinfo (`user:password@`) from `url` and returns it as the value of
/// `Authorization`.
pub(crate) fn take_user_info_as_authorization(
    url: &mut Url,
) -> Option<Result<HeaderValue, InvalidReason>> {
    let (user, password) = decoded_user_info(url)?;
    remove_user_info(url);
    Some(basic_authorization(&user, &password))
}

/// Removes the userinfo (`user:password@`) from `url`.
pub(crate) fn remove_user_info(url: &mut Url) {
    // `set_password` and `set_username` fail only for a URL without a host, which cannot have
    // userinfo.
    let _ = url.set_password(None);
    let _ = url.set_username("");
}

fn push_base64(text: &mut String, bytes: &[u8]) {
    const BASE64_ALPHABET: &[u8; 64] =
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let sextet = (group >> (18 - 6 * at)) as usize & 63;
            text.push(if at <= chunk.len() {
                char::from(BASE64_ALPHABET[sextet])
            } else {
                '='
            });
        }
    }
}

/// Parses the name and the value of a header. Marks the value sensitive if the header is defined to
/// carry credentials, as `Authorization` is.
pub(crate) fn parse_header_name_and_value<K, V>(
    name: K,
    value: V,
) -> Result<(HeaderName, HeaderValue), InvalidReason>
where
    K: TryInto<HeaderName>,
    V: TryInto<HeaderValue>,
{
    let Ok(name) = name.try_into() else {
        return Err("the name of a header is empty or holds a character it must not hold".into());
    };
    let Ok(mut value) = value.try_into() else {
        return Err(format!(
            "the value of the header {name:?} holds a line break or another character \
             it must not hold"
        )
        .into());
    };
    mark_sensitive_if_credential(&name, &mut value);
    Ok((name, value))
}

/// Marks `value` sensitive if the header `name` is defined to carry credentials, as `Authorization`
/// is.
pub(crate) fn mark_sensitive_if_credential(name: &HeaderName, value: &mut HeaderValue) {
    if is_credential_header(name) {
        value.set_sensitive(true);
    }
}

fn is_credential_header(name: &HeaderName) -> bool {
    [
        header::AUTHORIZATION,
        header::PROXY_AUTHORIZATION,
        header::COOKIE,
        header::SET_COOKIE,
    ]
    .contains(name)
}

/// Removes every header that may carry credentials: a header defined to carry them, a value marked
/// sensitive, or a name that suggests a credential. An `Idempotency-Key` is kept, because the
/// server needs it to recognize a repeated request.
pub(crate) fn remove_credential_headers(headers: &mut HeaderMap) {
    let sensitive_names: Vec<HeaderName> = headers
        .iter()
        .filter(|(name, value)| {
            let is_sensitive_name =
                header_name_suggests_credential(name) && *name != "idempotency-key";
            is_credential_header(name) || value.is_sensitive() || is_sensitive_name
        })
        .map(|(name, _)| name.clone())
        .collect();
    for name in sensitive_names {
        headers.remove(name);
    }
}

/// Whether the header name suggests a credential, as `X-Api-Key` does. A harmless header may match
/// too: hiding its value is better than showing a secret.
fn header_name_suggests_credential(name: &HeaderName) -> bool {
    [
        "auth",
        "cookie",
        "key",
        "pass",
        "secret",
        "session",
        "token",
        "signature",
        "credential",
    ]
    .iter()
    .any(|word| name.as_str().contains(word))
}

/// Formats headers with `Debug`, with `***` in place of each value that may be a secret.
pub(crate) struct RedactedHeaders<'a>(pub(crate) &'a HeaderMap);

impl fmt::Debug for RedactedHeaders<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (name, value) in self.0 {
            if value.is_sensitive() || header_name_suggests_credential(name) {
                map.entry(&name.as_str(), &format_args!("***"));
            } else if let Some(text) = header_value_with_redacted_urls(name, value) {
                map.entry(&name.as_str(), &text);
            } else {
                map.entry(&name.as_str(), value);
            }
        }
        map.finish()
    }
}

/// Returns the value of a header with the userinfo and the query values of its URLs redacted.
/// Returns `None` if the value contains neither.
fn header_value_with_redacted_urls(name: &HeaderName, value: &HeaderValue) -> Option<String> {
    let text = String::from_utf8_lossy(value.as_bytes());
    let has_user_info = text.contains("//") && text.contains('@');
    let without_user_info = if has_user_info {
        mask_possible_user_info(&text)
    } else {
        Cow::Borrowed(&*text)
    };
    let is_url = [header::LOCATION, header::CONTENT_LOCATION, header::REFERER].contains(name);
    let shown = if is_url {
        RedactedUrl(&without_user_info).to_string()
    } else {
        with_redacted_urls(&without_user_info)
    };
    (shown != text).then_some(shown)
}

/// Replaces the part of `text` that may be userinfo with `***`. `text` need not be a valid URL.
///
/// The end of the userinfo of an invalid URL is uncertain, because a `/` or `#` in a password is a
/// common reason why a URL is invalid. Everything before the last `@` is therefore replaced.
pub(crate) fn mask_possible_user_info(text: &str) -> Cow<'_, str> {
    let Some(at) = text.rfind('@') else {
        return text.into();
    };
    let is_scheme = |scheme: &str| {
        let is_scheme_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        !scheme.is_empty() && scheme.bytes().all(is_scheme_byte)
    };
    match text[..at].split_once("://") {
        Some((scheme, _)) if is_scheme(scheme) => format!("{scheme}://***{}", &text[at..]).into(),
        _ => format!("***{}", &text[at..]).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_padded_as_in_rfc_4648() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
            ("\u{ff}\u{3e}?", "w78+Pw=="),
        ] {
            let mut text = String::new();
            push_base64(&mut text, plain.as_bytes());
            assert_eq!(text, coded, "{plain:?}");
        }
    }

    #[test]
    fn take_user_info_decodes_it_and_removes_it_from_the_url() {
        let mut url = Url::parse("http://us%20er:p%40%zz%@a.example/x").unwrap();
        let value = take_user_info_as_authorization(&mut url).unwrap().unwrap();
        assert_eq!(value, basic_authorization(b"us er", b"p@%zz%").unwrap());
        assert!(value.is_sensitive());
        assert_eq!(url.as_str(), "http://a.example/x");
        assert!(take_user_info_as_authorization(&mut url).is_none());
    }

    #[test]
    fn take_user_info_accepts_a_user_without_password() {
        let mut url = Url::parse("http://token@a.example/").unwrap();
        let value = take_user_info_as_authorization(&mut url).unwrap().unwrap();
        assert_eq!(value, basic_authorization(b"token", b"").unwrap());
    }

    #[test]
    fn invalid_reason_never_quotes_the_value() {
        for reason in [
            bearer_authorization("s3cr3t\n").unwrap_err(),
            basic_authorization(b"s3cr3t:", b"").unwrap_err(),
            parse_header_name_and_value("s3cr3t ", "x").unwrap_err(),
            parse_header_name_and_value("x-api-key", "s3cr3t\n").unwrap_err(),
        ] {
            assert!(!reason.contains("s3cr3t"), "{reason}");
        }
    }

    #[test]
    fn redacted_hides_values_by_name_and_by_sensitive_flag() {
        let mut map = HeaderMap::new();
        for name in ["authorization", "set-cookie", "x-api-key", "x-csrf-token"] {
            map.insert(name, HeaderValue::from_static("s3cr3t"));
        }
        let mut marked = HeaderValue::from_static("s3cr3t");
        marked.set_sensitive(true);
        map.insert("x-plain", marked);
        map.insert(
            "location",
            HeaderValue::from_static("http://u:s3cr3t@a.example/"),
        );
        map.insert(
            "content-location",
            HeaderValue::from_bytes(b"http://u:s3cr3t@a.example/caf\xe9").unwrap(),
        );
        let with_query = HeaderValue::from_bytes(b"http://u:s3cr3t@a.example/\xe9?key=s3cr3t");
        map.append("location", with_query.unwrap());
        map.append("location", HeaderValue::from_static("/x?key=s3cr3t"));
        map.append("location", HeaderValue::from_static("x?key=a b s3cr3t"));
        let next = HeaderValue::from_static("</x?cursor=s3cr3t>; rel=next");
        map.insert("link", next);
        map.insert("accept", HeaderValue::from_static("text/html"));
        let shown = format!("{:?}", RedactedHeaders(&map));
        assert!(!shown.contains("s3cr3t"), "{shown}");
        assert!(shown.contains("x-plain") && shown.contains("text/html"));
    }

    #[test]
    fn without_user_info_replaces_everything_before_the_last_at_sign() {
        for (text, shown) in [
            ("no url", "no url"),
            ("http://u:p#@w@ho st/x", "http://***@ho st/x"),
            ("u:p@host", "***@host"),
            ("ht\ntp://u:p@host", "***@host"),
            ("u:p://w@host", "***@host"),
        ] {
            assert_eq!(mask_possible_user_info(text), shown);
        }
    }
}

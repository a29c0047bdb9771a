//! Displays URLs without the values of their query parameters.
//!
//! Many services take credentials in the query: `?key=…`, `?access_token=…`, the `X-Amz-Signature`
//! of a presigned URL. Errors, `Debug` output and logs therefore show a URL through
//! [`RedactedUrl`].

use std::fmt;

/// The length in bytes after which a displayed URL is cut.
const MAX_SHOWN_URL_BYTES: usize = 512;
/// The length in bytes of the longest parameter name that is shown.
const MAX_SHOWN_PARAMETER_NAME_BYTES: usize = 64;
/// The length in bytes of the longest parameter without a value that is shown. A longer parameter
/// may be a key.
const MAX_SHOWN_BARE_PARAMETER_BYTES: usize = 16;

/// A URL, or the invalid text that was passed as a URL. `Display` and `Debug` show the names of its
/// query parameters, with `***` in place of the values, and at most 512 bytes.
///
/// The parameters of a fragment (`#access_token=…`) and of a path segment (`;jsessionid=…`) are
/// redacted like those of the query. A parameter without `=` is shown only if it is short and comes
/// first, as in `?wsdl`. A longer one may be a key, and a later one may be the rest of a value with
/// an unencoded `&`. In a percent-encoded URL, `%3F` begins the query and `%3D` ends a name.
pub(crate) struct RedactedUrl<'a>(pub(crate) &'a str);

/// The part of a URL that a delimiter begins.
#[derive(Copy, Clone, PartialEq)]
enum UrlPart {
    Path,
    PathParameters,
    Query,
    Fragment,
}

impl UrlPart {
    /// Finds the first delimiter in `text`, which begins in this part of a URL. Returns the
    /// position and the length of the delimiter, and the part of the URL after it.
    fn find_next_delimiter(self, text: &str) -> Option<(usize, usize, UrlPart)> {
        let bytes = text.as_bytes();
        (0..bytes.len()).find_map(|at| {
            let next_part = match (self, bytes[at]) {
                (UrlPart::Path | UrlPart::PathParameters, b'?') => UrlPart::Query,
                (UrlPart::Path | UrlPart::PathParameters, b';' | b'&') => UrlPart::PathParameters,
                (UrlPart::Path | UrlPart::PathParameters, b'%')
                    if is_percent_encoding_at(text, at, "%3F") =>
                {
                    return Some((at, 3, UrlPart::Query));
                }
                (UrlPart::PathParameters, b'/') => UrlPart::Path,
                (UrlPart::Query | UrlPart::Fragment, b'&') => self,
                (UrlPart::Fragment, _) => return None,
                (_, b'#') => UrlPart::Fragment,
                _ => return None,
            };
            Some((at, 1, next_part))
        })
    }
}

impl RedactedUrl<'_> {
    fn to_redacted_text(&self) -> String {
        let mut shown = String::new();
        let mut part = UrlPart::Path;
        let mut may_show_bare_parameter = false;
        let mut rest = self.0;
        loop {
            let delimiter = part.find_next_delimiter(rest);
            let (end, delimiter_len, next_part) = delimiter.unwrap_or((rest.len(), 0, part));
            let component = &rest[..end];
            if part == UrlPart::Path {
                shown.push_str(component);
            } else {
                push_redacted_parameter(&mut shown, component, may_show_bare_parameter);
            }
            if delimiter.is_none() || shown.len() > MAX_SHOWN_URL_BYTES {
                return truncated_with_ellipsis(shown);
            }
            shown.push_str(&rest[end..end + delimiter_len]);
            rest = &rest[end + delimiter_len..];
            may_show_bare_parameter = part == UrlPart::Path;
            part = next_part;
        }
    }
}

fn push_redacted_parameter(shown: &mut String, parameter: &str, may_show_bare: bool) {
    let (name, equals_sign, value) = split_parameter_at_equals(parameter);
    // A value of `=` only is the padding of a base64 text, so the parameter has no value.
    let is_bare = value.bytes().all(|byte| byte == b'=');
    let max_name_len = match (is_bare, may_show_bare) {
        (false, _) => MAX_SHOWN_PARAMETER_NAME_BYTES,
        (true, true) => MAX_SHOWN_BARE_PARAMETER_BYTES,
        (true, false) => 0,
    };
    if name.len() <= max_name_len {
        shown.push_str(name);
        shown.push_str(equals_sign);
        if !is_bare {
            shown.push_str("***");
        }
    } else if is_bare {
        shown.push_str("***");
    } else {
        shown.push_str("***=***");
    }
}

/// Splits a parameter into its name, its equals sign and its value. A parameter without an equals
/// sign is a name.
fn split_parameter_at_equals(parameter: &str) -> (&str, &str, &str) {
    let plain = parameter.find('=').map(|at| (at, at + 1));
    let encoded = (0..plain.map_or(parameter.len(), |(at, _)| at))
        .find(|&at| is_percent_encoding_at(parameter, at, "%3D"))
        .map(|at| (at, at + 3));
    match encoded.or(plain) {
        Some((start, end)) => (
            &parameter[..start],
            &parameter[start..end],
            &parameter[end..],
        ),
        None => (parameter, "", ""),
    }
}

/// Whether the text has the percent-encoded character `encoded` at the byte position `at`.
fn is_percent_encoding_at(text: &str, at: usize, encoded: &str) -> bool {
    let found = text.as_bytes().get(at..at + encoded.len());
    found.is_some_and(|found| found.eq_ignore_ascii_case(encoded.as_bytes()))
}

/// Cuts a text that is too long, at the end of a character, and marks the cut with `…`.
fn truncated_with_ellipsis(mut shown: String) -> String {
    if shown.len() > MAX_SHOWN_URL_BYTES {
        let end = (0..=MAX_SHOWN_URL_BYTES)
            .rev()
            .find(|&at| shown.is_char_boundary(at));
        shown.truncate(end.unwrap_or(0));
        shown.push('…');
    }
    shown
}

/// Redacts each URL in the value of a header that is not a single URL, such as `Link` or `Refresh`.
pub(crate) fn with_redacted_urls(header_value: &str) -> String {
    let is_boundary = |character: char| " \t<>\"".contains(character);
    let mut shown = String::new();
    for piece in header_value.split_inclusive(is_boundary) {
        let (text, boundary) = match piece.char_indices().next_back() {
            Some((at, last)) if is_boundary(last) => piece.split_at(at),
            _ => (piece, ""),
        };
        if may_be_url_with_parameters(text) {
            shown.push_str(&RedactedUrl(text).to_redacted_text());
        } else {
            shown.push_str(text);
        }
        shown.push_str(boundary);
    }
    shown
}

/// Whether a piece of a header value may be a URL with parameters. `html;charset=utf-8` is no such
/// URL.
fn may_be_url_with_parameters(text: &str) -> bool {
    text.contains(['?', '#'])
        || text.starts_with('/')
        || text.contains("://")
        || text.contains("%3F")
        || text.contains("%3f")
}

impl fmt::Display for RedactedUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_redacted_text())
    }
}

/// Quotes and escapes the text.
impl fmt::Debug for RedactedUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_redacted_text(), f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_value_is_shown(
            base in "(https?://a\\.example/|/)[a-z/;]{0,5}",
            start in "(\\?|#|;|&|%3[fF]|\\?[a-z]{1,9}=[0-9]{1,9}[&#])",
            name in "[a-zé]{1,20}",
            equals_sign in "(=|%3[dD])",
            value in "[a-zA-Z0-9+%:@!',._~é-]{0,20}[#&?;/]?S3CR3T[a-zA-Z0-9+/%:?@!,._~é-]{0,40}=?",
        ) {
            // A slash ends the parameters of a path segment.
            let ends_at_slash = start == ";" || start == "&";
            prop_assume!(!ends_at_slash || !value.contains('/'));
            // The text between `&` and `%3D` is a name.
            prop_assume!(!value.to_lowercase().contains("%3d"));
            let url = format!("{base}{start}{name}{equals_sign}{value}");
            for shown in [RedactedUrl(&url).to_string(), with_redacted_urls(&url)] {
                prop_assert!(!shown.contains("S3CR3T"), "{url} {shown}");
            }
        }
    }

    #[test]
    fn names_of_parameters_are_shown_and_values_are_not() {
        for (text, shown) in [
            ("http://a.example/", "http://a.example/"),
            ("http://a.example/x?", "http://a.example/x?"),
            ("http://a.example/x?key=s", "http://a.example/x?key=***"),
            ("http://a.example?key=s", "http://a.example?key=***"),
            ("http://a.example/?a=1&b=2", "http://a.example/?a=***&b=***"),
            ("http://a.example/?a=&b=s", "http://a.example/?a=&b=***"),
            ("http://a.example/?a[]=s", "http://a.example/?a[]=***"),
            ("http://a.example/?a=s;t=s&b", "http://a.example/?a=***&***"),
            (
                "http://a.example/?u=http://b/?key=s/s",
                "http://a.example/?u=***",
            ),
            ("http://a.example/?u=s%26s%3Ds", "http://a.example/?u=***"),
            ("http://a.example/?a=s==", "http://a.example/?a=***"),
            ("http://a.example/?wsdl", "http://a.example/?wsdl"),
            ("http://a.example/?acl&v=s", "http://a.example/?acl&v=***"),
            (
                "http://a.example/?0123456789abcdef",
                "http://a.example/?0123456789abcdef",
            ),
            (
                "http://a.example/?0123456789abcdefg",
                "http://a.example/?***",
            ),
            (
                "http://a.example/?c2VjcmV0IHNlY3JldA==",
                "http://a.example/?***",
            ),
            ("http://a.example/#top", "http://a.example/#top"),
            ("http://a.example/?q=s#top", "http://a.example/?q=***#***"),
            (
                "http://a.example/#access_token=s&state=s",
                "http://a.example/#access_token=***&state=***",
            ),
            (
                "http://a.example/#/route?token=s",
                "http://a.example/#/route?token=***",
            ),
            (
                "http://a.example/x;jsessionid=s/y?a=s",
                "http://a.example/x;jsessionid=***/y?a=***",
            ),
            ("http://a.example/x&key=s", "http://a.example/x&key=***"),
            ("http://a.example/R&D/x=y", "http://a.example/R&D/x=y"),
            (
                "http://a.example/x%3Fkey%3Ds%26b%3Ds",
                "http://a.example/x%3Fkey%3D***",
            ),
            (
                "https%3a%2f%2fa.example%3fkey%3ds",
                "https%3a%2f%2fa.example%3fkey%3d***",
            ),
            ("not a url?key=s s", "not a url?key=***"),
            ("http://[::1?key=s", "http://[::1?key=***"),
            ("é?é=s", "é?é=***"),
            ("%3", "%3"),
            ("", ""),
        ] {
            assert_eq!(RedactedUrl(text).to_string(), shown, "{text}");
            assert_eq!(format!("{:?}", RedactedUrl(text)), format!("{shown:?}"));
        }
        let long_name = format!("http://a.example/?{}=s", "n".repeat(65));
        assert_eq!(
            RedactedUrl(&long_name).to_string(),
            "http://a.example/?***=***"
        );
    }

    #[test]
    fn presigned_url_keeps_the_names_of_its_parameters() {
        let url = "https://bucket.s3.amazonaws.com/key?X-Amz-Algorithm=AWS4-HMAC-SHA256\
                   &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
                   &X-Amz-Security-Token=FwoGZXIvYXdzE&X-Amz-Signature=fe5f80f77d5fa3beca038a248ff027";
        assert_eq!(
            RedactedUrl(url).to_string(),
            "https://bucket.s3.amazonaws.com/key?X-Amz-Algorithm=***&X-Amz-Credential=***\
             &X-Amz-Security-Token=***&X-Amz-Signature=***"
        );
    }

    #[test]
    fn long_url_is_cut_at_the_end_of_a_character() {
        for text in [
            format!("http://a.example/{}", "é".repeat(1000)),
            format!("http://a.example/x?{}", "name=s&".repeat(10_000)),
            format!("http://a.example/{}?key=s", "x".repeat(600)),
        ] {
            let shown = RedactedUrl(&text).to_string();
            let kept = shown.strip_suffix('…').unwrap();
            assert!((511..=512).contains(&kept.len()), "{}", kept.len());
        }
        let whole = format!("http://a.example/{}", "x".repeat(495));
        assert_eq!(RedactedUrl(&whole).to_string(), whole);
    }

    #[test]
    fn urls_in_headers_are_redacted() {
        for (value, shown) in [
            ("text/html; charset=utf-8", "text/html; charset=utf-8"),
            (
                "https://a.example/?code=s,s#s",
                "https://a.example/?code=***#***",
            ),
            ("/next?cursor=s", "/next?cursor=***"),
            ("/next;jsessionid=s", "/next;jsessionid=***"),
            (
                "https://a.example/x;jsessionid=s",
                "https://a.example/x;jsessionid=***",
            ),
            ("next%3Fcursor%3Ds", "next%3Fcursor%3D***"),
            ("gzip, br;q=0.5", "gzip, br;q=0.5"),
            (
                r#"<https://a.example/?p=s>; rel="next", </x?p=s>; rel="last""#,
                r#"<https://a.example/?p=***>; rel="next", </x?p=***>; rel="last""#,
            ),
            (
                "5; url=http://a.example/?key=s",
                "5; url=http://a.example/?key=***",
            ),
        ] {
            assert_eq!(with_redacted_urls(value), shown);
        }
    }
}

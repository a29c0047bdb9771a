//! Decodes text in the encodings of the WHATWG Encoding Standard.
//!
//! A byte order mark selects the encoding. A text without a byte order mark has the encoding of the
//! `charset` in the `Content-Type`, or else UTF-8, as in the "decode" algorithm of the standard.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8};

use crate::quoted_string::parse_quoted_string;

/// Decodes `body` as text. `content_type` is called only if `body` has no byte order mark.
pub(crate) fn decode_text<'a>(
    body: &'a [u8],
    content_type: impl FnOnce() -> Option<&'a [u8]>,
) -> Cow<'a, str> {
    let (encoding, bom_len) = Encoding::for_bom(body)
        .or_else(|| Some((encoding_from_content_type(content_type()?)?, 0)))
        .unwrap_or((UTF_8, 0));
    encoding.decode_without_bom_handling(&body[bom_len..]).0
}

/// Returns the encoding that the first `charset` parameter of a `Content-Type` names (RFC 9110
/// §8.3).
///
/// Returns `None` for an encoding that the standard maps to "replacement". Only attackers use these
/// encodings.
fn encoding_from_content_type(content_type: &[u8]) -> Option<&'static Encoding> {
    // Invalid bytes become U+FFFD, which no encoding name contains.
    let content_type = String::from_utf8_lossy(content_type);
    let (_, mut unparsed) = content_type.split_once(';')?;
    loop {
        let name_len = unparsed.find(['=', ';'])?;
        let (name, rest) = (&unparsed[..name_len], &unparsed[name_len + 1..]);
        if unparsed.as_bytes()[name_len] == b';' {
            unparsed = rest;
            continue;
        }
        let (value, rest) = parse_parameter_value(rest);
        if name.trim_ascii().eq_ignore_ascii_case("charset") {
            return Encoding::for_label_no_replacement(value.as_bytes());
        }
        unparsed = rest;
    }
}

/// Parses a token or a quoted string (RFC 9110 §5.6.6). Returns the unescaped value and the text
/// after the next `;`. Without a closing quote, the quoted string ends at the end of `text`.
fn parse_parameter_value(text: &str) -> (Cow<'_, str>, &str) {
    let Some(quoted) = text.trim_ascii_start().strip_prefix('"') else {
        let (value, rest) = split_at_first_semicolon(text);
        return (value.trim_ascii().into(), rest);
    };
    let (value, rest) = parse_quoted_string(quoted);
    (value, split_at_first_semicolon(rest.unwrap_or("")).1)
}

fn split_at_first_semicolon(text: &str) -> (&str, &str) {
    text.split_once(';').unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use crate::response::Response;

    fn text(content_type: &str, body: &[u8]) -> String {
        let response = http::Response::builder()
            .header("x-charset", "gbk")
            .header("content-type", content_type)
            .body(body.to_vec().into())
            .unwrap();
        Response::from(response).text().into_owned()
    }

    #[test]
    fn content_type_label_selects_the_encoding() {
        for (content_type, body, expected) in [
            ("text/html; charset=iso-8859-1", &b"caf\xe9"[..], "café"),
            (
                "text/html; charset=windows-1252",
                b"\x80 \x93x\x94",
                "€ “x”",
            ),
            ("text/html; charset=Shift_JIS", b"\x93\xfa\x96{", "日本"),
            ("text/plain;charset=GBK", b"\xd6\xd0\xce\xc4", "中文"),
            ("text/html; charset=\"gbk\"", b"\xd6\xd0", "中"),
            ("text/html; a=b; CharSet = latin1 ; c=d", b"\xe9", "é"),
            ("text/html; charset=utf-16le", b"a\0\xe9\0", "aé"),
            ("text/html; charset=utf-8", "日本".as_bytes(), "日本"),
        ] {
            assert_eq!(text(content_type, body), expected, "{content_type}");
        }
    }

    #[test]
    fn quoted_parameters_are_parsed_as_strings() {
        for content_type in [
            r#"text/html; a="; charset=gbk"; charset=iso-8859-1"#,
            r#"text/html; a="\"; charset=gbk"; charset=iso-8859-1"#,
            r#"text/html;a="\\";charset="iso-8859-1";charset=gbk"#,
            r#"text/html; charset = "iso-8859-1" ; charset=gbk"#,
            r#"text/html; charset="iso-\8859-1"; a=b"#,
            r#"text/html; charset="iso-8859-1"garbage; charset=gbk"#,
            r#"text/html; charset="iso-8859-1"#,
            r#"text/html; a; charset=iso-8859-1"#,
            r#"text/html; a=b"c; charset=iso-8859-1"#,
            r#"text/html;; ;charset=iso-8859-1;"#,
            r#"text/html; charset= iso-8859-1 "#,
        ] {
            assert_eq!(text(content_type, b"\xe9"), "\u{e9}", "{content_type}");
        }
        for content_type in [
            r#"text/html; a="; charset=gbk""#,
            r#"text/html; a="; charset=gbk"#,
            r#"text/html; xcharset=gbk; charset*=gbk"#,
            r#"text/html, charset=gbk"#,
        ] {
            assert_eq!(text(content_type, b"\xc3\xa9"), "\u{e9}", "{content_type}");
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_parameters_never_panic(
            parameters in "(charset|;|=|\"|\\\\| |gbk|[a-z]){0,20}",
        ) {
            let _ = text(&format!("text/html;{parameters}"), b"\xe9");
        }
    }

    #[test]
    fn byte_order_mark_overrides_the_label_and_is_removed() {
        for content_type in ["text/html", "text/html; charset=gbk"] {
            assert_eq!(text(content_type, b"\xff\xfea\0\xe9\0"), "aé");
            assert_eq!(text(content_type, b"\xfe\xff\0a\0\xe9"), "aé");
            assert_eq!(text(content_type, b"\xef\xbb\xbfa\xc3\xa9"), "aé");
        }
    }

    #[test]
    fn missing_or_unknown_label_means_lossy_utf_8() {
        for content_type in [
            "text/html",
            "text/html; charset",
            "text/html; charset=",
            "text/html; charset=\"",
            "text/html; charset=klingon",
            "text/html; charset=iso-2022-kr",
            "charset=gbk",
        ] {
            assert_eq!(
                text(content_type, b"\xc3\xa9\xff"),
                "é\u{fffd}",
                "{content_type}"
            );
        }
    }

    #[test]
    fn malformed_bytes_are_replaced() {
        assert_eq!(text("text/html; charset=shift_jis", b"a\x93"), "a\u{fffd}");
    }
}

//! Text in the character sets of the web: the mark counts before the label, and the label before UTF-8, as the Encoding
//! Standard's "decode" has it.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8};

/// The body as text. `content_type` is asked for only if there is no mark.
pub(crate) fn decode_text<'a>(
    body: &'a [u8],
    content_type: impl FnOnce() -> Option<&'a [u8]>,
) -> Cow<'a, str> {
    let (encoding, bom_len) = Encoding::for_bom(body)
        .or_else(|| Some((encoding_from_label(content_type()?)?, 0)))
        .unwrap_or((UTF_8, 0));
    encoding.decode_without_bom_handling(&body[bom_len..]).0
}

/// What the `charset` of a `Content-Type` names (RFC 9110 §8.3). Encodings that are of no use but to attackers, which the
/// Standard decodes to one U+FFFD, count as unknown.
fn encoding_from_label(content_type: &[u8]) -> Option<&'static Encoding> {
    let charset = content_type
        .split(|byte| *byte == b';')
        .skip(1)
        .find_map(|parameter| {
            let equals = parameter.iter().position(|byte| *byte == b'=')?;
            let (name, value) = parameter.split_at(equals);
            let is_charset = name.trim_ascii().eq_ignore_ascii_case(b"charset");
            is_charset.then(|| value[1..].trim_ascii())
        })?;
    let label = charset
        .strip_prefix(b"\"")
        .and_then(|quoted| quoted.strip_suffix(b"\""))
        .unwrap_or(charset);
    Encoding::for_label_no_replacement(label)
}

#[cfg(test)]
mod tests {
    use crate::Response;

    fn text(content_type: &str, body: &[u8]) -> String {
        let response = http::Response::builder()
            .header("x-charset", "gbk")
            .header("content-type", content_type)
            .body(body.to_vec().into())
            .unwrap();
        Response::from(response).text().into_owned()
    }

    #[test]
    fn the_label_of_the_content_type_decides() {
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
    fn a_mark_counts_before_the_label_and_is_no_text() {
        for content_type in ["text/html", "text/html; charset=gbk"] {
            assert_eq!(text(content_type, b"\xff\xfea\0\xe9\0"), "aé");
            assert_eq!(text(content_type, b"\xfe\xff\0a\0\xe9"), "aé");
            assert_eq!(text(content_type, b"\xef\xbb\xbfa\xc3\xa9"), "aé");
        }
    }

    #[test]
    fn without_a_label_that_is_known_it_is_utf_8_and_lossy() {
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
    fn what_is_malformed_in_its_charset_is_replaced() {
        assert_eq!(text("text/html; charset=shift_jis", b"a\x93"), "a\u{fffd}");
    }
}

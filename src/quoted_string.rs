//! Parses quoted strings in header values.

use std::borrow::Cow;

/// Parses a quoted string (RFC 9110 §5.6.4). `text` begins after the opening quote. Returns the
/// unescaped string and the text after the closing quote. Without a closing quote, the string ends
/// at the end of `text`, and `None` is returned for the text after it.
pub(crate) fn parse_quoted_string(text: &str) -> (Cow<'_, str>, Option<&str>) {
    let Some(end) = text.find(['"', '\\']) else {
        return (text.into(), None);
    };
    if text.as_bytes()[end] == b'"' {
        return (text[..end].into(), Some(&text[end + 1..]));
    }
    let mut unescaped = String::new();
    let mut chars = text.chars();
    while let Some(next) = chars.next() {
        match next {
            '"' => return (unescaped.into(), Some(chars.as_str())),
            '\\' => unescaped.extend(chars.next()),
            plain => unescaped.push(plain),
        }
    }
    (unescaped.into(), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn string_without_closing_quote_ends_with_the_text() {
        for (text, string) in [
            ("", ""),
            ("a; b", "a; b"),
            (r#"a\"b\\"#, "a\"b\\"),
            (r"a\", "a"),
        ] {
            assert_eq!(parse_quoted_string(text), (string.into(), None), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_quoted_string_is_unescaped(text in "[ -~]{0,20}") {
            let escaped = text.replace('\\', r"\\").replace('"', "\\\"");
            let quoted = format!("{escaped}\"; unparsed");
            let (unescaped, unparsed) = parse_quoted_string(&quoted);
            proptest::prop_assert_eq!((&*unescaped, unparsed), (&*text, Some("; unparsed")));
        }
    }
}

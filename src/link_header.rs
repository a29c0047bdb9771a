//! Parses `Link` headers (RFC 8288).
//!
//! The crate `parse_link_header` is not used, because it rejects a target that is only a query,
//! ignores `anchor`, and fails every case of the test
//! `a_link_with_the_relation_is_found_in_every_syntax`.

use std::borrow::Cow;

use http::header::{HeaderMap, LINK};
use url::Url;

use crate::header_url::{percent_encode_non_utf8, resolve_url_without_user_info};
use crate::quoted_string::parse_quoted_string;

/// Optional whitespace (RFC 9110, section 5.6.3).
const OPTIONAL_WHITESPACE: [char; 2] = [' ', '\t'];

/// The reason why the target of a link is unknown.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum LinkError {
    /// A `Link` header is malformed, and its malformed part may hold the link.
    MalformedHeader,
    /// The target of the link is not a URL.
    InvalidTarget,
}

/// Returns the resolved target of the first link whose relation is `relation`, or `None` if the
/// headers hold no such link. `base` is the URL of the document. Relations are case-insensitive.
///
/// Links with an `anchor` that is not the document are skipped (RFC 8288, section 3.2).
pub(crate) fn find_link_target(
    headers: &HeaderMap,
    relation: &str,
    base: &Url,
) -> Result<Option<Url>, LinkError> {
    let mut document = Cow::Borrowed(base);
    if base.fragment().is_some() {
        document.to_mut().set_fragment(None);
    }
    let mut may_be_malformed = false;
    for field in headers.get_all(LINK) {
        let text = percent_encode_non_utf8(field.as_bytes());
        let mut parser = LinkParser::new(&text);
        let is_wanted =
            |link: &Link<'_>| link.applies_to_document(&document) && link.has_relation(relation);
        if let Some(link) = parser.by_ref().find(is_wanted) {
            let target = resolve_url_without_user_info(link.target, base);
            return target.map(Some).map_err(|_| LinkError::InvalidTarget);
        }
        may_be_malformed |= parser.malformed_text_may_hold_link(relation);
    }
    if may_be_malformed {
        Err(LinkError::MalformedHeader)
    } else {
        Ok(None)
    }
}

#[derive(Debug, Default, PartialEq)]
struct Link<'a> {
    target: &'a str,
    relations: Option<Cow<'a, str>>,
    anchor: Option<Cow<'a, str>>,
}

impl<'a> Link<'a> {
    fn has_relation(&self, relation: &str) -> bool {
        let relations = self.relations.as_deref().unwrap_or_default();
        relations
            .split_ascii_whitespace()
            .any(|candidate| candidate.eq_ignore_ascii_case(relation))
    }

    /// Whether the link belongs to the document `base`: it has no `anchor`, or `base` as its
    /// `anchor` (RFC 8288, section 3.2).
    fn applies_to_document(&self, base: &Url) -> bool {
        match &self.anchor {
            None => true,
            Some(anchor) => base.join(anchor).is_ok_and(|anchor| anchor == *base),
        }
    }

    /// Stores a parameter of the link. If a parameter is repeated, its first value is kept (RFC
    /// 8288, section 3.3).
    fn set_parameter_if_unset(&mut self, name: &str, value: Cow<'a, str>) {
        if name.eq_ignore_ascii_case("rel") {
            self.relations.get_or_insert(value);
        } else if name.eq_ignore_ascii_case("anchor") {
            self.anchor.get_or_insert(value);
        }
    }
}

/// Parses the links of one field value with the algorithm of RFC 8288, appendix B.2. Parsing stops
/// at a syntax error.
struct LinkParser<'a> {
    unparsed_text: &'a str,
    /// The text from the first syntax error to the end of the field. `None` if there is no syntax
    /// error.
    malformed_text: Option<&'a str>,
}

impl<'a> Iterator for LinkParser<'a> {
    type Item = Link<'a>;

    fn next(&mut self) -> Option<Link<'a>> {
        let unparsed = self.unparsed_text.trim_start_matches([' ', '\t', ',']);
        if unparsed.is_empty() {
            return None;
        }
        // A URL contains no `<`, so a target that contains `<` lacks its closing `>`.
        let bracketed = unparsed.strip_prefix('<');
        let target_and_rest = bracketed.and_then(|bracketed| bracketed.split_once('>'));
        let Some((target, rest)) = target_and_rest.filter(|(target, _)| !target.contains('<'))
        else {
            self.malformed_text.get_or_insert(unparsed);
            self.unparsed_text = "";
            return None;
        };
        self.unparsed_text = rest;
        let mut link = Link {
            target: target.trim_matches(OPTIONAL_WHITESPACE),
            ..Link::default()
        };
        while let Some((name, value)) = self.parse_next_parameter() {
            link.set_parameter_if_unset(name, value);
        }
        Some(link)
    }
}

impl<'a> LinkParser<'a> {
    fn new(field: &'a str) -> Self {
        Self {
            unparsed_text: field,
            malformed_text: None,
        }
    }

    /// Whether the malformed part of the field may hold a link with this relation: the part names
    /// the relation, or it begins with a target without its `>`.
    fn malformed_text_may_hold_link(&self, relation: &str) -> bool {
        self.malformed_text.is_some_and(|malformed| {
            let mut words = malformed.split(|c: char| !is_relation_char(c));
            malformed.starts_with('<') || words.any(|word| word.eq_ignore_ascii_case(relation))
        })
    }

    /// Returns the next parameter of the current link, or `None` after the last parameter.
    fn parse_next_parameter(&mut self) -> Option<(&'a str, Cow<'a, str>)> {
        self.unparsed_text = &self.unparsed_text[self
            .unparsed_text
            .find([';', ','])
            .unwrap_or(self.unparsed_text.len())..];
        let unparsed = self
            .unparsed_text
            .strip_prefix(';')?
            .trim_start_matches(OPTIONAL_WHITESPACE);
        let end = unparsed
            .find([' ', '\t', '=', ';', ','])
            .unwrap_or(unparsed.len());
        let (name, unparsed) = unparsed.split_at(end);
        let unparsed = unparsed.trim_start_matches(OPTIONAL_WHITESPACE);
        let Some(value) = unparsed.strip_prefix('=') else {
            self.unparsed_text = unparsed;
            return Some((name, Cow::Borrowed("")));
        };
        let value = value.trim_start_matches(OPTIONAL_WHITESPACE);
        let (value, unparsed) = match value.strip_prefix('"') {
            Some(quoted) => match parse_quoted_string(quoted) {
                (value, Some(unparsed)) => (value, unparsed),
                (_, None) => {
                    self.malformed_text.get_or_insert(quoted);
                    (quoted.into(), "")
                }
            },
            None => {
                let end = value.find([';', ',']).unwrap_or(value.len());
                let (value, unparsed) = value.split_at(end);
                (value.trim_end_matches(OPTIONAL_WHITESPACE).into(), unparsed)
            }
        };
        self.unparsed_text = unparsed;
        Some((name, value))
    }
}

/// Whether a character may be part of a relation, which is a name or a URL (RFC 8288, section 3.3).
fn is_relation_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~:/?#@!$&'()*+%".contains(c)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers_of<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(LINK, HeaderValue::from_bytes(field).unwrap());
        }
        headers
    }

    fn found<const N: usize>(fields: [&str; N], relation: &str) -> Option<String> {
        let headers = headers_of(fields.map(str::as_bytes));
        let base = Url::parse("https://a.example/items/list?page=2").unwrap();
        find_link_target(&headers, relation, &base)
            .ok()?
            .map(String::from)
    }

    #[test]
    fn a_link_with_the_relation_is_found_in_every_syntax() {
        for field in [
            r#"<?page=3>; rel="next""#,
            "<?page=3>;rel=next",
            "<?page=3> ; REL = Next ; title=x",
            r#"</items/list?page=3>; title="a, b; c=\"<d>\"; rel=prev"; rel="next""#,
            r#"<?page=1>; rel="prev first", <?page=3>; rel="last  next""#,
            r#"<?page=1>; rel=prev,<?page=3>;rel=next"#,
            r#", ,<?page=3>; rel="ne\xt";"#,
            "<https://a.example/items/list?page=3>; rel=next; crossorigin",
            r#"<?page=3>; rel=next; rel=prev, <?page=4>; rel=next"#,
            r#"<?page=3>; flag; rel="next"#,
            r#"<?page=3>; title*=UTF-8''x%2c; rel=next"#,
            r#"<?page=3>; anchor="?page=2"; rel=next"#,
            r#"<?page=9>; anchor="/elsewhere"; rel=next, < ?page=3 >; rel=next"#,
            r#"<?page=3> garbage; rel=next"#,
        ] {
            assert_eq!(
                found([field], "next").as_deref(),
                Some("https://a.example/items/list?page=3"),
                "{field}"
            );
        }
    }

    #[test]
    fn malformed_and_other_links_are_not_found() {
        for field in [
            "",
            "<?page=3>",
            "<?page=3>; rel=nextpage",
            "<?page=3>; rel=",
            "<?page=3>; rel=prev; rel=next",
            "?page=3; rel=next",
            "<?page=3; rel=next",
            r#"<?page=3>; title="rel=next""#,
            r#"<?page=3>; title="unended; rel=next"#,
            "<?page=3>; xrel=next",
            "<?page=3>, rel=next",
        ] {
            assert_eq!(found([field], "next"), None, "{field}");
        }
        assert_eq!(found([], "next"), None);
    }

    #[test]
    fn bytes_that_are_not_utf_8_change_no_other_part_of_a_link() {
        let base = Url::parse("https://a.example/list").unwrap();
        for (field, url) in [
            (
                &b"</2>; title=\"caf\xe9\"; rel=\"next\""[..],
                "https://a.example/2",
            ),
            (b"</2>; rel=next; title=\xe9", "https://a.example/2"),
            (b"</1>; rel=\"\xff\", </2>; rel=next", "https://a.example/2"),
            (
                b"</caf\xe9?q=\xe9>; rel=next",
                "https://a.example/caf%E9?q=%E9",
            ),
            (b"</caf\xc3\xa9>; rel=next", "https://a.example/caf%C3%A9"),
        ] {
            let link = find_link_target(&headers_of([field]), "next", &base);
            assert_eq!(link, Ok(Some(url.parse().unwrap())), "{field:?}");
        }
    }

    #[test]
    fn malformed_part_that_may_hold_the_link_is_an_error() {
        let base = Url::parse("https://a.example/list").unwrap();
        let find = |field: &[u8]| find_link_target(&headers_of([field]), "next", &base);
        for field in [
            &b"?page=3; rel=next"[..],
            b"<?page=3; rel=next",
            b"<?page=3>, rel=\"NEXT\"",
            b"<?page=1>; rel=prev, <?page=3",
            b"<?page=1; rel=prev, <?page=3>; rel=next",
            b"<?page=3>; title=\"caf\xe9; rel=next",
            b"garbage, <?page=3>; rel=next",
        ] {
            let error = Err(LinkError::MalformedHeader);
            assert_eq!(find(field), error, "{}", field.escape_ascii());
        }
        for field in [
            &b""[..],
            b", ,",
            b"garbage",
            b"https://a.example/; rel=canonical",
            b"<?page=1>; rel=prev; garbage",
            b"<?page=1>; rel=next-archive, nextcloud",
            b"<?page=3>; title=\"unended\\",
        ] {
            assert_eq!(find(field), Ok(None), "{}", field.escape_ascii());
        }
        assert_eq!(find(b"<http://[>; rel=next"), Err(LinkError::InvalidTarget));
    }

    #[test]
    fn fragment_of_the_document_does_not_change_its_anchors() {
        let base = Url::parse("https://a.example/list?page=2#part").unwrap();
        let find = |field: &'static [u8]| find_link_target(&headers_of([field]), "next", &base);
        let next = Ok(Some("https://a.example/list?page=3".parse().unwrap()));
        assert_eq!(find(b"<?page=3>; rel=next; anchor=\"?page=2\""), next);
        assert_eq!(find(b"<?page=3>; rel=next; anchor=\"\""), next);
        assert_eq!(find(b"<?page=3>; rel=next; anchor=\"#part\""), Ok(None));
    }

    #[test]
    fn several_fields_are_one_list_and_the_first_match_wins() {
        let fields = [
            "<?page=1>; rel=prev",
            "<b>; rel=next, <c>; rel=next",
            "<d>; rel=last",
        ];
        let at = |relation| found(fields, relation);
        assert_eq!(at("next").as_deref(), Some("https://a.example/items/b"));
        assert_eq!(at("last").as_deref(), Some("https://a.example/items/d"));
        assert_eq!(at("first"), None);
    }

    #[test]
    fn targets_are_resolved_without_user_info() {
        for (target, url) in [
            ("", "https://a.example/items/list?page=2"),
            ("//b.example/x", "https://b.example/x"),
            ("../up#f", "https://a.example/up#f"),
            ("http://user:s3cr3t@b.example/", "http://b.example/"),
            ("mailto:x@a.example", "mailto:x@a.example"),
        ] {
            let field = format!("<{target}>; rel=next");
            assert_eq!(found([&field], "next").as_deref(), Some(url), "{target}");
        }
        assert_eq!(found(["<http://[>; rel=next"], "next"), None);
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics_and_ends(field in "[<>;,=\"\\\\ \tarelnx/?]{0,60}") {
            let count = LinkParser::new(&field).count();
            proptest::prop_assert!(count <= field.matches('<').count());
        }
    }
}

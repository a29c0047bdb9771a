//! Parses `Link` headers (RFC 8288).
//!
//! The crate `parse_link_header` is not used, because it rejects a target that is only a query,
//! ignores `anchor`, and fails every case of the test
//! `a_link_with_the_relation_is_found_in_every_syntax`.

use std::borrow::Cow;

use http::header::{HeaderMap, LINK};
use url::Url;

/// Optional whitespace (RFC 9110, section 5.6.3).
const OPTIONAL_WHITESPACE: [char; 2] = [' ', '\t'];

/// Returns the target of the first link whose relation is `relation`, as written in the header.
/// Relations are case-insensitive.
///
/// Links with an `anchor` that is not the document `base` are skipped (RFC 8288, section 3.2).
pub(crate) fn find_link_target<'a>(
    headers: &'a HeaderMap,
    relation: &str,
    base: &Url,
) -> Option<&'a str> {
    let fields = headers.get_all(LINK).iter();
    let texts = fields.filter_map(|field| std::str::from_utf8(field.as_bytes()).ok());
    let mut links = texts.flat_map(|text| LinkParser { unparsed: text });
    links
        .find(|link| link.has_context(base) && link.has_relation(relation))
        .map(|link| link.target)
}

/// Resolves a link target against `base`, the URL of the document.
///
/// User-info is removed: otherwise one server could choose the credentials sent to another server.
pub(crate) fn resolve_link_target(target: &str, base: &Url) -> Option<Url> {
    let mut url = base.join(target).ok()?;
    // `set_password` and `set_username` fail only for a URL that cannot have user-info.
    let _ = url.set_password(None);
    let _ = url.set_username("");
    Some(url)
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
    fn has_context(&self, base: &Url) -> bool {
        match &self.anchor {
            None => true,
            Some(anchor) => base.join(anchor).is_ok_and(|anchor| anchor == *base),
        }
    }

    /// Stores a parameter of the link. If a parameter is repeated, its first value is kept (RFC
    /// 8288, section 3.3).
    fn set_parameter(&mut self, name: &str, value: Cow<'a, str>) {
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
    unparsed: &'a str,
}

impl<'a> Iterator for LinkParser<'a> {
    type Item = Link<'a>;

    fn next(&mut self) -> Option<Link<'a>> {
        let unparsed = self.unparsed.trim_start_matches([' ', '\t', ',']);
        let (target, unparsed) = unparsed.strip_prefix('<')?.split_once('>')?;
        self.unparsed = unparsed;
        let mut link = Link {
            target: target.trim_matches(OPTIONAL_WHITESPACE),
            ..Link::default()
        };
        while let Some((name, value)) = self.next_parameter() {
            link.set_parameter(name, value);
        }
        Some(link)
    }
}

impl<'a> LinkParser<'a> {
    /// Returns the next parameter of the current link, or `None` after the last parameter.
    fn next_parameter(&mut self) -> Option<(&'a str, Cow<'a, str>)> {
        self.unparsed = &self.unparsed[self
            .unparsed
            .find([';', ','])
            .unwrap_or(self.unparsed.len())..];
        let unparsed = self
            .unparsed
            .strip_prefix(';')?
            .trim_start_matches(OPTIONAL_WHITESPACE);
        let end = unparsed
            .find([' ', '\t', '=', ';', ','])
            .unwrap_or(unparsed.len());
        let (name, unparsed) = unparsed.split_at(end);
        let unparsed = unparsed.trim_start_matches(OPTIONAL_WHITESPACE);
        let Some(value) = unparsed.strip_prefix('=') else {
            self.unparsed = unparsed;
            return Some((name, Cow::Borrowed("")));
        };
        let value = value.trim_start_matches(OPTIONAL_WHITESPACE);
        let (value, unparsed) = match value.strip_prefix('"') {
            Some(quoted) => parse_quoted_string(quoted),
            None => {
                let end = value.find([';', ',']).unwrap_or(value.len());
                let (value, unparsed) = value.split_at(end);
                (value.trim_end_matches(OPTIONAL_WHITESPACE).into(), unparsed)
            }
        };
        self.unparsed = unparsed;
        Some((name, value))
    }
}

/// Parses a quoted string (RFC 9110, section 5.6.4). `text` begins after the opening quote. Returns
/// the unescaped string and the text after the closing quote.
fn parse_quoted_string(text: &str) -> (Cow<'_, str>, &str) {
    match text.find(['"', '\\']) {
        Some(end) if text.as_bytes()[end] == b'"' => (text[..end].into(), &text[end + 1..]),
        None => (text.into(), ""),
        Some(_) => {
            let mut unescaped = String::new();
            let mut chars = text.chars();
            while let Some(c) = chars.next() {
                match c {
                    '"' => break,
                    '\\' => unescaped.extend(chars.next()),
                    plain => unescaped.push(plain),
                }
            }
            (unescaped.into(), chars.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn found<const N: usize>(fields: [&str; N], relation: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(LINK, HeaderValue::from_bytes(field.as_bytes()).unwrap());
        }
        let base = Url::parse("https://a.example/items/list?page=2").unwrap();
        let target = find_link_target(&headers, relation, &base)?;
        resolve_link_target(target, &base).map(String::from)
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
            let count = LinkParser { unparsed: &field }.count();
            proptest::prop_assert!(count <= field.matches('<').count());
        }

        #[test]
        fn a_quoted_string_is_unescaped(text in "[ -~]{0,20}") {
            let escaped = text.replace('\\', r"\\").replace('"', "\\\"");
            let quoted = format!("{escaped}\"; unparsed");
            let (unescaped, unparsed) = parse_quoted_string(&quoted);
            proptest::prop_assert_eq!((&*unescaped, unparsed), (&*text, "; unparsed"));
        }
    }
}

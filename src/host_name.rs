//! Comparisons of host names.

/// Whether the name `host` is a subdomain of `parent`. Both names are in lower case.
pub(crate) fn is_subdomain(host: &str, parent: &str) -> bool {
    host.strip_suffix(parent)
        .is_some_and(|labels| labels.ends_with('.'))
}

/// Whether a name is `localhost` or a subdomain of it. Such names have loopback addresses (RFC 6761
/// §6.3). The final dot of an absolute name is ignored.
pub(crate) fn is_localhost_or_subdomain(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost" || is_subdomain(name, "localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subdomain_has_at_least_one_label_more_than_its_parent() {
        for (host, parent, expected) in [
            ("www.a.example", "a.example", true),
            ("x.www.a.example", "a.example", true),
            ("a.example", "a.example", false),
            ("nota.example", "a.example", false),
            ("example", "a.example", false),
            ("a.example.org", "a.example", false),
            ("www.a.example.", "a.example", false),
            ("www.a.example.", "a.example.", true),
        ] {
            assert_eq!(is_subdomain(host, parent), expected, "{host} {parent}");
        }
    }

    #[test]
    fn localhost_and_names_below_it_are_localhost() {
        for (name, expected) in [
            ("localhost", true),
            ("localhost.", true),
            ("app.localhost", true),
            ("a.b.localhost.", true),
            ("localhost..", false),
            ("notlocalhost", false),
            ("foo-localhost", false),
            ("localhost.example", false),
            ("127.0.0.1", false),
            ("", false),
        ] {
            assert_eq!(is_localhost_or_subdomain(name), expected, "{name}");
        }
    }
}

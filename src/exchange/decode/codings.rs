//! Which codings there are, and which a response names.

use std::sync::LazyLock;

use http::header::{CONTENT_ENCODING, HeaderMap, HeaderValue};

use super::layer::Layer;
use crate::{Error, ErrorKind};

/// The most codings that are undone, one inside the other.
const MAX_CODINGS: usize = 5;

/// A coding that is built in.
pub(super) struct Coding {
    pub(super) name: &'static str,
    pub(super) layer: fn() -> Box<dyn Layer>,
}

pub(super) static SUPPORTED_CODINGS: &[Coding] = &[
    #[cfg(feature = "gzip")]
    Coding {
        name: "gzip",
        layer: super::gzip::new_layer,
    },
    #[cfg(feature = "deflate")]
    Coding {
        name: "deflate",
        layer: super::deflate::new_layer,
    },
    #[cfg(feature = "brotli")]
    Coding {
        name: "br",
        layer: super::brotli::new_layer,
    },
    #[cfg(feature = "zstd")]
    Coding {
        name: "zstd",
        layer: super::zstd::new_layer,
    },
];

/// The `Accept-Encoding` that names what is built in.
pub(crate) fn accept_encoding() -> Option<HeaderValue> {
    static NAMES: LazyLock<String> = LazyLock::new(|| {
        let names: Vec<_> = SUPPORTED_CODINGS.iter().map(|coding| coding.name).collect();
        names.join(", ")
    });
    Some(HeaderValue::from_static(NAMES.as_str()))
}

/// The codings of a body, in the order in which they were applied; empty if there is none, or one that is not built in.
pub(super) fn parse_content_encoding(headers: &HeaderMap) -> Result<Vec<&'static Coding>, Error> {
    let mut codings = Vec::new();
    let values = headers.get_all(CONTENT_ENCODING).iter();
    for name in values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')) {
        let name = name.trim_ascii();
        if name.is_empty() || name.eq_ignore_ascii_case(b"identity") {
            continue;
        }
        match find_coding(name) {
            Some(coding) => codings.push(coding),
            None => return Ok(Vec::new()),
        }
    }
    if codings.len() > MAX_CODINGS {
        let count = codings.len();
        return Err(
            Error::from_kind(ErrorKind::ContentEncoding).with_detail(format!(
                "{count} codings one inside the other, and at most {MAX_CODINGS} are undone"
            )),
        );
    }
    Ok(codings)
}

/// Names are of any case, and `x-gzip` is another one for gzip (RFC 9110 §8.4.1).
fn find_coding(name: &[u8]) -> Option<&'static Coding> {
    let name = match name {
        alias if alias.eq_ignore_ascii_case(b"x-gzip") => b"gzip",
        name => name,
    };
    SUPPORTED_CODINGS
        .iter()
        .find(|coding| coding.name.as_bytes().eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(values: &[&'static str]) -> Result<Vec<&'static str>, Error> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CONTENT_ENCODING, HeaderValue::from_static(value));
        }
        Ok(parse_content_encoding(&headers)?
            .iter()
            .map(|coding| coding.name)
            .collect())
    }

    #[test]
    fn what_is_accepted_is_what_is_built_in() {
        let accept_encoding = accept_encoding().unwrap();
        for name in accept_encoding.to_str().unwrap().split(", ") {
            assert!(find_coding(name.as_bytes()).is_some(), "{name}");
        }
        assert!(accept_encoding.to_str().unwrap().ends_with("zstd"));
    }

    #[cfg(feature = "gzip")]
    #[test]
    fn codings_of_one_header_or_several_are_read_in_order() {
        assert_eq!(names(&[]).unwrap(), [""; 0]);
        assert_eq!(names(&["zstd, GZip"]).unwrap(), ["zstd", "gzip"]);
        assert_eq!(
            names(&["zstd", " x-gzip ,, identity", "Zstd"]).unwrap(),
            ["zstd", "gzip", "zstd"]
        );
    }

    #[test]
    fn identity_and_the_unknown_leave_the_body_as_it_is() {
        for values in [
            &["identity"][..],
            &[""],
            &["compress"],
            &["zstd", "aes128gcm"],
        ] {
            assert_eq!(names(values).unwrap(), [""; 0], "{values:?}");
        }
    }

    #[test]
    fn more_than_five_codings_are_an_error() {
        assert_eq!(names(&["zstd,zstd,zstd", "zstd,zstd"]).unwrap().len(), 5);
        assert_eq!(
            names(&["zstd,zstd,identity,zstd", "zstd,zstd"])
                .unwrap()
                .len(),
            5
        );
        let error = names(&["zstd,zstd,zstd,zstd", "zstd,zstd"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ContentEncoding);
    }
}

//! Which codings there are, and which a response names.

use std::sync::LazyLock;

use http::header::{CONTENT_ENCODING, HeaderMap, HeaderValue};

use super::layer::Layer;
use crate::{Error, ErrorKind};

/// The most codings that are undone, one inside the other.
const MOST: usize = 5;

/// A coding that is built in.
pub(super) struct Coding {
    pub(super) name: &'static str,
    pub(super) layer: fn() -> Box<dyn Layer>,
}

pub(super) static BUILT_IN: &[Coding] = &[
    #[cfg(feature = "gzip")]
    Coding {
        name: "gzip",
        layer: super::gzip::layer,
    },
    #[cfg(feature = "deflate")]
    Coding {
        name: "deflate",
        layer: super::deflate::layer,
    },
    #[cfg(feature = "brotli")]
    Coding {
        name: "br",
        layer: super::brotli::layer,
    },
    #[cfg(feature = "zstd")]
    Coding {
        name: "zstd",
        layer: super::zstd::layer,
    },
];

/// The `Accept-Encoding` that names what is built in.
pub(crate) fn accepted() -> Option<HeaderValue> {
    static NAMES: LazyLock<String> = LazyLock::new(|| {
        let names: Vec<_> = BUILT_IN.iter().map(|coding| coding.name).collect();
        names.join(", ")
    });
    Some(HeaderValue::from_static(NAMES.as_str()))
}

/// The codings of a body, in the order in which they were applied; empty if there is none, or one that is not built in.
pub(super) fn of(headers: &HeaderMap) -> Result<Vec<&'static Coding>, Error> {
    let mut codings = Vec::new();
    let values = headers.get_all(CONTENT_ENCODING).iter();
    for name in values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')) {
        let name = name.trim_ascii();
        if name.is_empty() || name.eq_ignore_ascii_case(b"identity") {
            continue;
        }
        match built_in(name) {
            Some(coding) => codings.push(coding),
            None => return Ok(Vec::new()),
        }
    }
    if codings.len() > MOST {
        let count = codings.len();
        return Err(Error::of(ErrorKind::Encoding).because(format!(
            "{count} codings one inside the other, and at most {MOST} are undone"
        )));
    }
    Ok(codings)
}

/// Names are of any case, and `x-gzip` is another one for gzip (RFC 9110 §8.4.1).
fn built_in(name: &[u8]) -> Option<&'static Coding> {
    let name = match name {
        alias if alias.eq_ignore_ascii_case(b"x-gzip") => b"gzip",
        name => name,
    };
    BUILT_IN
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
        Ok(of(&headers)?.iter().map(|coding| coding.name).collect())
    }

    #[test]
    fn what_is_accepted_is_what_is_built_in() {
        let accepted = accepted().unwrap();
        for name in accepted.to_str().unwrap().split(", ") {
            assert!(built_in(name.as_bytes()).is_some(), "{name}");
        }
        assert!(accepted.to_str().unwrap().ends_with("zstd"));
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
        assert_eq!(error.kind(), ErrorKind::Encoding);
    }
}

//! The supported content codings, and the parser of `Content-Encoding`.

use std::sync::LazyLock;

use http::header::{CONTENT_ENCODING, HeaderMap, HeaderValue};

use super::layer::DecoderLayer;
use crate::error::{Error, ErrorKind};

/// The maximum number of codings of one body. Each coding encodes the output of the previous
/// coding.
const MAX_NESTED_CODINGS: usize = 5;

/// A supported content coding.
pub(super) struct Coding {
    pub(super) name: &'static str,
    pub(super) new_layer: fn() -> Box<dyn DecoderLayer>,
}

pub(super) static SUPPORTED_CODINGS: &[Coding] = &[
    #[cfg(feature = "gzip")]
    Coding {
        name: "gzip",
        new_layer: super::gzip::new_layer,
    },
    #[cfg(feature = "deflate")]
    Coding {
        name: "deflate",
        new_layer: super::deflate::new_layer,
    },
    #[cfg(feature = "brotli")]
    Coding {
        name: "br",
        new_layer: super::brotli::new_layer,
    },
    #[cfg(feature = "zstd")]
    Coding {
        name: "zstd",
        new_layer: super::zstd::new_layer,
    },
];

/// The `Accept-Encoding` value that lists the supported codings.
pub(crate) fn accept_encoding() -> Option<HeaderValue> {
    static COMMA_SEPARATED_NAMES: LazyLock<String> = LazyLock::new(|| {
        let names: Vec<_> = SUPPORTED_CODINGS.iter().map(|coding| coding.name).collect();
        names.join(", ")
    });
    Some(HeaderValue::from_static(COMMA_SEPARATED_NAMES.as_str()))
}

/// Parses `Content-Encoding` into codings, in the order in which the server applied them. Returns
/// an empty list if the body is not encoded, or if one of its codings is not supported.
///
/// # Errors
///
/// Returns [`ErrorKind::ContentEncoding`] if the body has more than [`MAX_NESTED_CODINGS`] codings.
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
    if codings.len() > MAX_NESTED_CODINGS {
        let count = codings.len();
        return Err(
            Error::from_kind(ErrorKind::ContentEncoding).with_detail(format!(
                "the body has {count} nested codings; the limit is {MAX_NESTED_CODINGS}"
            )),
        );
    }
    Ok(codings)
}

/// Finds a coding by its name, ignoring case. `x-gzip` is an alias of `gzip` (RFC 9110 §8.4.1).
fn find_coding(name: &[u8]) -> Option<&'static Coding> {
    let name = if name.eq_ignore_ascii_case(b"x-gzip") {
        b"gzip"
    } else {
        name
    };
    SUPPORTED_CODINGS
        .iter()
        .find(|coding| coding.name.as_bytes().eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coding_names(values: &[&'static str]) -> Result<Vec<&'static str>, Error> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CONTENT_ENCODING, HeaderValue::from_static(value));
        }
        let codings = parse_content_encoding(&headers)?;
        Ok(codings.iter().map(|coding| coding.name).collect())
    }

    #[test]
    fn accept_encoding_lists_the_supported_codings() {
        let accept_encoding = accept_encoding().unwrap();
        for name in accept_encoding.to_str().unwrap().split(", ") {
            assert!(find_coding(name.as_bytes()).is_some(), "{name}");
        }
        assert!(accept_encoding.to_str().unwrap().ends_with("zstd"));
    }

    #[cfg(feature = "gzip")]
    #[test]
    fn codings_in_one_header_or_several_are_parsed_in_order() {
        assert_eq!(coding_names(&[]).unwrap(), [""; 0]);
        assert_eq!(coding_names(&["zstd, GZip"]).unwrap(), ["zstd", "gzip"]);
        assert_eq!(
            coding_names(&["zstd", " x-gzip ,, identity", "Zstd"]).unwrap(),
            ["zstd", "gzip", "zstd"]
        );
    }

    #[test]
    fn identity_and_unknown_codings_leave_the_body_unchanged() {
        for values in [
            &["identity"][..],
            &[""],
            &["compress"],
            &["zstd", "aes128gcm"],
        ] {
            assert_eq!(coding_names(values).unwrap(), [""; 0], "{values:?}");
        }
    }

    #[test]
    fn more_than_five_codings_are_an_error() {
        let five = coding_names(&["zstd,zstd,zstd", "zstd,zstd"]).unwrap();
        assert_eq!(five.len(), 5);
        let five = coding_names(&["zstd,zstd,identity,zstd", "zstd,zstd"]).unwrap();
        assert_eq!(five.len(), 5);
        let error = coding_names(&["zstd,zstd,zstd,zstd", "zstd,zstd"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ContentEncoding);
    }
}

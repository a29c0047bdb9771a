//! Response headers in a compact form.
//!
//! A `HeaderMap` takes about 100 bytes per header in addition to the text, and header values parsed
//! from the wire keep the whole read buffer alive. The headers of most responses in a batch are
//! never read. Headers are therefore packed into one allocation of the exact size, and converted to
//! a `HeaderMap` on first access.

use std::cell::RefCell;
use std::sync::OnceLock;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};

// A header name cannot contain either separator. A header value cannot contain `LINE_END`.
const PLAIN_SEPARATOR: u8 = b':';
const SENSITIVE_SEPARATOR: u8 = b';';
const LINE_END: u8 = b'\n';

/// The maximum capacity that the scratch buffer keeps after a response, in bytes.
const MAX_KEPT_SCRATCH_BYTES: usize = 16 << 10;

thread_local! {
    /// The buffer in which headers are packed before they are copied to an allocation of the exact
    /// size. Computing that size first would need a second pass over the headers.
    static SCRATCH_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Headers packed as `name:value\n`, or `name;value\n` for a sensitive value.
#[derive(Clone, Default)]
pub(crate) struct PackedHeaders {
    packed_bytes: Box<[u8]>,
    /// The unpacked headers, set on first access.
    unpacked_map: OnceLock<Box<HeaderMap>>,
}

impl PackedHeaders {
    pub(crate) fn new(map: &HeaderMap) -> Self {
        let packed_bytes = SCRATCH_BUFFER.with_borrow_mut(|scratch| {
            scratch.clear();
            scratch.shrink_to(MAX_KEPT_SCRATCH_BYTES);
            for (name, value) in map {
                scratch.extend_from_slice(name.as_str().as_bytes());
                scratch.push(if value.is_sensitive() {
                    SENSITIVE_SEPARATOR
                } else {
                    PLAIN_SEPARATOR
                });
                scratch.extend_from_slice(value.as_bytes());
                scratch.push(LINE_END);
            }
            Box::from(scratch.as_slice())
        });
        Self {
            packed_bytes,
            unpacked_map: OnceLock::new(),
        }
    }

    pub(crate) fn as_header_map(&self) -> &HeaderMap {
        self.unpacked_map
            .get_or_init(|| Box::new(unpack_headers(&self.packed_bytes)))
    }

    /// Returns the first value of the header `name` without unpacking the headers.
    pub(crate) fn first_value_of_header(&self, name: &str) -> Option<&[u8]> {
        self.packed_bytes
            .split(|byte| *byte == LINE_END)
            .find_map(|line| {
                let rest = line.strip_prefix(name.as_bytes())?;
                rest.strip_prefix(&[PLAIN_SEPARATOR])
                    .or_else(|| rest.strip_prefix(&[SENSITIVE_SEPARATOR]))
            })
    }

    pub(crate) fn into_header_map(self) -> HeaderMap {
        match self.unpacked_map.into_inner() {
            Some(map) => *map,
            None => unpack_headers(&self.packed_bytes),
        }
    }
}

fn unpack_headers(packed: &[u8]) -> HeaderMap {
    let packed = Bytes::copy_from_slice(packed);
    let lines = packed.iter().filter(|byte| **byte == LINE_END).count();
    let mut map = HeaderMap::try_with_capacity(lines).unwrap_or_default();
    for line in packed.split(|byte| *byte == LINE_END) {
        if let Some((name, value)) = parse_packed_line(&packed, line) {
            // Appending fails only if there are more headers than the original map could hold.
            let _ = map.try_append(name, value);
        }
    }
    map
}

fn parse_packed_line(packed: &Bytes, line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let separator = line
        .iter()
        .position(|byte| matches!(*byte, PLAIN_SEPARATOR | SENSITIVE_SEPARATOR))?;
    let name = HeaderName::from_bytes(&line[..separator]).ok()?;
    let value = packed.slice_ref(&line[separator + 1..]);
    let mut value = HeaderValue::from_maybe_shared(value).ok()?;
    value.set_sensitive(line[separator] == SENSITIVE_SEPARATOR);
    Some((name, value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn empty_headers_need_no_allocation() {
        let packed = PackedHeaders::new(&HeaderMap::new());
        assert!(packed.packed_bytes.is_empty());
        assert_eq!(packed.as_header_map().capacity(), 0);
    }

    #[test]
    fn sensitive_flag_survives_packing() {
        let mut map = HeaderMap::new();
        let mut value = HeaderValue::from_static("a;b:c");
        value.set_sensitive(true);
        map.append("x-a", value);
        map.append("x-a", HeaderValue::from_static(""));
        let unpacked = PackedHeaders::new(&map).into_header_map();
        let sensitive_flags: Vec<_> = unpacked
            .get_all("x-a")
            .iter()
            .map(HeaderValue::is_sensitive)
            .collect();
        assert_eq!(sensitive_flags, [true, false]);
        assert_eq!(unpacked, map);
    }

    proptest! {
        #[test]
        fn packing_round_trips_every_map(
            headers in prop::collection::vec(
                ("[!#$%&'*+.^_`|~a-zA-Z0-9-]{1,12}", "[\t -~\u{80}-\u{fff}]{0,40}"),
                0..40,
            ),
        ) {
            let mut map = HeaderMap::new();
            for (name, value) in &headers {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            let packed = PackedHeaders::new(&map);
            prop_assert_eq!(packed.as_header_map(), &map);
            let order: Vec<_> = packed.as_header_map().iter().collect();
            prop_assert_eq!(order, map.iter().collect::<Vec<_>>());
            prop_assert_eq!(packed.into_header_map(), map);
        }
    }
}

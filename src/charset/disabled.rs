//! Replaces the module `charset` if the feature `charset` is off: all text is decoded as UTF-8.

use std::borrow::Cow;

pub(crate) fn decode_text<'a>(
    body: &'a [u8],
    _content_type: impl FnOnce() -> Option<&'a [u8]>,
) -> Cow<'a, str> {
    String::from_utf8_lossy(body)
}

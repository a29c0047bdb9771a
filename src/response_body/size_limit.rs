//! The error for a body that exceeds the size limit.

use crate::error::{Error, ErrorKind};

pub(super) fn body_too_large_error(max_body_size: u64) -> Error {
    let detail = format!("the limit is {max_body_size} bytes");
    Error::from_kind(ErrorKind::BodyTooLarge).with_detail(detail)
}

//! The limits on a response head, in HTTP/1.1 and HTTP/2.

/// The maximum size of a response head in bytes. hyper limits a head only by the size of its read
/// buffer. The buffer is larger than this limit, so that large bodies are read faster.
pub(super) const MAX_HEAD_BYTES: usize = 256 * 1024;

/// The error message for a head of more than [`MAX_HEAD_BYTES`].
pub(super) const HEAD_TOO_LARGE_MESSAGE: &str = "the response head is larger than 256 KiB";

/// The number of bytes that are added to the size of each field, as in HTTP/2 (RFC 9113 §6.5.2).
pub(super) const FIELD_OVERHEAD_BYTES: usize = 32;

/// The maximum number of informational responses (1xx) before the final response.
pub(super) const MAX_INFORMATIONAL_RESPONSES: u32 = 16;

/// The error message for more than [`MAX_INFORMATIONAL_RESPONSES`] informational responses.
pub(super) const TOO_MANY_INFORMATIONAL_MESSAGE: &str = "more than 16 informational responses";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_give_the_limits() {
        assert!(TOO_MANY_INFORMATIONAL_MESSAGE.contains(&MAX_INFORMATIONAL_RESPONSES.to_string()));
        assert!(HEAD_TOO_LARGE_MESSAGE.contains(&(MAX_HEAD_BYTES / 1024).to_string()));
    }
}

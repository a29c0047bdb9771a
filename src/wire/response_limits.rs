//! The limits on a response head, in HTTP/1.1 and HTTP/2.

/// The maximum size of a response head in bytes. hyper limits a head only by the size of its read
/// buffer, which is larger than this limit to read large bodies faster.
pub(super) const MAX_HEAD_BYTES: usize = 256 * 1024;

/// The maximum number of informational responses (1xx) before the final response.
pub(super) const MAX_INFORMATIONAL: u32 = 16;

/// The error message for more than [`MAX_INFORMATIONAL`] informational responses.
pub(super) const TOO_MANY_INFORMATIONAL: &str = "more than 16 informational responses";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_names_the_limit() {
        assert!(TOO_MANY_INFORMATIONAL.contains(&MAX_INFORMATIONAL.to_string()));
    }
}

//! A parser for response heads that hyper rejects although most clients accept them.
//!
//! hyper parses each head first, and this parser parses only the heads that hyper has rejected. It
//! replaces a line fold by a space, as RFC 9112 §5.2 requires, and skips lines that are not valid
//! fields. It limits the size of a head, but not the number of its fields.
//!
//! The framing fields `Content-Length`, `Transfer-Encoding` and `Connection` decide where the
//! response ends. If a server and a client read one of them differently, a part of a body can be
//! mistaken for another response (RFC 9112 §11.1). Therefore a framing field in a form that hyper
//! rejects is an error.

use std::mem;

use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use http::{StatusCode, Version};

use super::response_limits::{
    FIELD_OVERHEAD_BYTES, HEAD_TOO_LARGE_MESSAGE, MAX_HEAD_BYTES, MAX_INFORMATIONAL_RESPONSES,
    TOO_MANY_INFORMATIONAL_MESSAGE,
};

/// The maximum number of framing fields (the fields that decide where the response ends) in a head.
/// It is below hyper's limit of 100 fields.
const MAX_FRAMING_FIELDS: usize = 64;
/// The maximum number of bytes of an invalid status line that an error message quotes.
const MAX_QUOTED_STATUS_LINE_BYTES: usize = 40;

const BARE_CR_OR_NUL: &str = "it contains a NUL or a carriage return";
const INVALID_FRAMING_FIELD: &str =
    "Content-Length, Transfer-Encoding and Connection must not be malformed or folded";
const TOO_MANY_FRAMING_FIELDS: &str = "the response head has more than 64 Content-Length, \
     Transfer-Encoding and Connection fields";

/// Why a response head is invalid.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum HeadError {
    #[error("the status line of the response is invalid: \"{0}\"")]
    InvalidStatusLine(String),
    #[error("line {number} of the response head is invalid: {reason}")]
    InvalidLine {
        /// The number of the line in the head. The status line has number 1.
        number: usize,
        reason: &'static str,
    },
    #[error("{0}")]
    LimitExceeded(&'static str),
}

/// A complete response head.
#[derive(Debug)]
pub(super) struct LenientHead {
    /// All valid fields of the head.
    pub(super) headers: HeaderMap,
    /// The rewritten head, which hyper accepts. It has only the status line and the fields that
    /// decide where the response ends.
    pub(super) strict_head: Vec<u8>,
}

/// Parses the response heads of a connection. Skips informational responses (1xx).
#[derive(Debug, Default)]
pub(super) struct LenientHeadParser {
    /// The received bytes that are not parsed yet.
    unparsed_bytes: Vec<u8>,
    partial_head: PartialHead,
    informational_count: u32,
}

impl LenientHeadParser {
    /// Prepares the parser for the next response on the connection.
    pub(super) fn reset_for_next_response(&mut self) {
        self.informational_count = 0;
    }

    /// Appends received bytes to the bytes that are not parsed yet.
    pub(super) fn push_bytes(&mut self, bytes: &[u8]) {
        self.unparsed_bytes.extend_from_slice(bytes);
    }

    /// Takes the received bytes that follow the head.
    pub(super) fn take_bytes_after_head(&mut self) -> Vec<u8> {
        mem::take(&mut self.unparsed_bytes)
    }

    /// Parses the received lines. Returns `None` while the final head is incomplete.
    ///
    /// An invalid line is an error even while the head is incomplete.
    pub(super) fn parse(&mut self) -> Result<Option<LenientHead>, HeadError> {
        let input = mem::take(&mut self.unparsed_bytes);
        let mut parsed = 0;
        let result = self.parse_lines(&input, &mut parsed);
        self.unparsed_bytes = input;
        self.unparsed_bytes.drain(..parsed);
        result
    }

    fn parse_lines(
        &mut self,
        input: &[u8],
        parsed: &mut usize,
    ) -> Result<Option<LenientHead>, HeadError> {
        while let Some(length) = input[*parsed..].iter().position(|&byte| byte == b'\n') {
            let line = &input[*parsed..*parsed + length];
            *parsed += length + 1;
            self.partial_head.count_line_bytes(length + 1)?;
            let is_complete = self
                .partial_head
                .add_line(line.strip_suffix(b"\r").unwrap_or(line))?;
            if !is_complete {
                continue;
            }
            let head = mem::take(&mut self.partial_head);
            if !head.is_followed_by_another_head() {
                return Ok(Some(head.into_lenient_head()));
            }
            self.informational_count += 1;
            if self.informational_count > MAX_INFORMATIONAL_RESPONSES {
                return Err(HeadError::LimitExceeded(TOO_MANY_INFORMATIONAL_MESSAGE));
            }
        }
        self.partial_head
            .reject_invalid_partial_line(&input[*parsed..])?;
        Ok(None)
    }
}

/// The part of a head that has been parsed.
#[derive(Debug, Default)]
struct PartialHead {
    status: Option<StatusCode>,
    headers: HeaderMap,
    strict_head: Vec<u8>,
    framing_field_count: usize,
    /// The number of complete lines, without empty lines before the status line.
    line_count: usize,
    /// The number of bytes of the complete lines.
    complete_line_bytes: usize,
    /// The total size of the fields in bytes, calculated as in HTTP/2 (RFC 9113 §6.5.2).
    total_field_size: usize,
    /// The last field line. The next line may continue it (a line fold).
    last_field: Option<FieldLine>,
}

/// A field line, joined with the lines that continue it.
#[derive(Debug)]
struct FieldLine {
    line_bytes: Vec<u8>,
    /// The number of the field's first line in the head.
    line_number: usize,
    is_folded: bool,
}

impl PartialHead {
    fn count_line_bytes(&mut self, count: usize) -> Result<(), HeadError> {
        self.complete_line_bytes += count;
        if self.complete_line_bytes > MAX_HEAD_BYTES {
            return Err(HeadError::LimitExceeded(HEAD_TOO_LARGE_MESSAGE));
        }
        Ok(())
    }

    /// Rejects an incomplete line if no further bytes can make it valid.
    fn reject_invalid_partial_line(&self, bytes: &[u8]) -> Result<(), HeadError> {
        if self.complete_line_bytes + bytes.len() > MAX_HEAD_BYTES {
            return Err(HeadError::LimitExceeded(HEAD_TOO_LARGE_MESSAGE));
        }
        let expected = b"HTTP/1.";
        let length = bytes.len().min(expected.len());
        let may_be_status_line = bytes == b"\r" || bytes[..length] == expected[..length];
        if self.status.is_none() && !may_be_status_line {
            return Err(status_line_error(bytes));
        }
        Ok(())
    }

    /// Adds a line, passed without its line ending. Returns whether the head is complete.
    fn add_line(&mut self, line: &[u8]) -> Result<bool, HeadError> {
        if self.status.is_none() {
            if !line.is_empty() {
                self.line_count = 1;
                self.add_status_line(line)?;
            }
            return Ok(false);
        }
        self.line_count += 1;
        if line.iter().any(|byte| matches!(byte, b'\0' | b'\r')) {
            // A NUL or a carriage return in a line is invalid (RFC 9110 §5.5).
            return Err(line_error(self.line_count, BARE_CR_OR_NUL));
        }
        match (&mut self.last_field, line) {
            (Some(field), [b' ' | b'\t', ..]) => {
                field.is_folded = true;
                let length = trim_ows_end(&field.line_bytes).len();
                field.line_bytes.truncate(length);
                field.line_bytes.push(b' ');
                field.line_bytes.extend_from_slice(trim_ows(line));
            }
            // A line that begins with whitespace must continue a field. Otherwise it is skipped
            // (RFC 9112 §2.2).
            (None, [b' ' | b'\t', ..]) => self.reject_framing_lookalike(line, self.line_count)?,
            (_, []) => {
                self.add_last_field()?;
                return Ok(true);
            }
            _ => {
                self.add_last_field()?;
                self.last_field = Some(FieldLine {
                    line_bytes: line.to_vec(),
                    line_number: self.line_count,
                    is_folded: false,
                });
            }
        }
        Ok(false)
    }

    fn add_status_line(&mut self, line: &[u8]) -> Result<(), HeadError> {
        let Some((version, status)) = parse_status_line(line) else {
            return Err(status_line_error(line));
        };
        let version = if version == Version::HTTP_10 {
            "HTTP/1.0"
        } else {
            "HTTP/1.1"
        };
        let reason = status.canonical_reason().unwrap_or_default();
        self.strict_head = format!("{version} {} {reason}\r\n", status.as_str()).into_bytes();
        self.status = Some(status);
        Ok(())
    }

    /// Adds the last field after its lines are complete. An invalid field is skipped.
    fn add_last_field(&mut self) -> Result<(), HeadError> {
        let Some(field) = self.last_field.take() else {
            return Ok(());
        };
        let Some(colon) = field.line_bytes.iter().position(|&byte| byte == b':') else {
            return self.reject_framing_lookalike(&field.line_bytes, field.line_number);
        };
        let (name_bytes, value) = (&field.line_bytes[..colon], &field.line_bytes[colon + 1..]);
        let trimmed_name = trim_ows_end(name_bytes);
        let name = HeaderName::from_bytes(trimmed_name);
        let value = HeaderValue::from_bytes(trim_ows(value));
        let (Ok(name), Ok(value)) = (name, value) else {
            return self.reject_framing_lookalike(name_bytes, field.line_number);
        };
        if is_framing_field(&name) {
            if field.is_folded || trimmed_name.len() < name_bytes.len() {
                return Err(line_error(field.line_number, INVALID_FRAMING_FIELD));
            }
            self.add_framing_field(&name, &value)?;
        }
        self.total_field_size += name.as_str().len() + value.len() + FIELD_OVERHEAD_BYTES;
        if self.total_field_size > MAX_HEAD_BYTES {
            return Err(HeadError::LimitExceeded(HEAD_TOO_LARGE_MESSAGE));
        }
        self.headers.append(name, value);
        Ok(())
    }

    fn add_framing_field(
        &mut self,
        name: &HeaderName,
        value: &HeaderValue,
    ) -> Result<(), HeadError> {
        self.framing_field_count += 1;
        if self.framing_field_count > MAX_FRAMING_FIELDS {
            return Err(HeadError::LimitExceeded(TOO_MANY_FRAMING_FIELDS));
        }
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            self.strict_head.extend_from_slice(part);
        }
        Ok(())
    }

    /// Rejects an invalid field line if another parser may read it as a framing field (a field that
    /// decides where the response ends).
    fn reject_framing_lookalike(&self, line: &[u8], number: usize) -> Result<(), HeadError> {
        let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
        let is_name_byte = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
        let mut name: Vec<u8> = name.iter().copied().filter(is_name_byte).collect();
        name.make_ascii_lowercase();
        let contains = |framing_name: HeaderName| {
            let framing_name = framing_name.as_str().as_bytes();
            name.windows(framing_name.len())
                .any(|part| part == framing_name)
        };
        if contains(CONTENT_LENGTH)
            || contains(TRANSFER_ENCODING)
            || name.starts_with(CONNECTION.as_str().as_bytes())
        {
            return Err(line_error(number, INVALID_FRAMING_FIELD));
        }
        Ok(())
    }

    /// Whether the head is informational (1xx), so that another head follows. A 101 is final,
    /// because it switches protocols.
    fn is_followed_by_another_head(&self) -> bool {
        self.status.is_some_and(|status| {
            status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
        })
    }

    fn into_lenient_head(mut self) -> LenientHead {
        self.strict_head.extend_from_slice(b"\r\n");
        LenientHead {
            headers: self.headers,
            strict_head: self.strict_head,
        }
    }
}

/// Parses a status line. Any number of spaces and tabs may separate its parts (RFC 9112 §4).
fn parse_status_line(line: &[u8]) -> Option<(Version, StatusCode)> {
    if line.iter().any(|byte| matches!(byte, b'\0' | b'\r')) {
        return None;
    }
    let (version, rest) = if let Some(rest) = line.strip_prefix(b"HTTP/1.1") {
        (Version::HTTP_11, rest)
    } else {
        (Version::HTTP_10, line.strip_prefix(b"HTTP/1.0")?)
    };
    let status_and_reason = trim_ows(rest);
    let (status, reason) = status_and_reason.split_at_checked(3)?;
    let is_separated = reason.first().is_none_or(is_ows);
    if status_and_reason.len() == rest.len() || !is_separated {
        return None;
    }
    Some((version, StatusCode::from_bytes(status).ok()?))
}

fn is_framing_field(name: &HeaderName) -> bool {
    [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION].contains(name)
}

/// Removes optional whitespace (OWS of RFC 9110 §5.6.3) at both ends of a value. `trim_ascii` would
/// also remove control characters such as a form feed.
fn trim_ows(bytes: &[u8]) -> &[u8] {
    let leading = bytes.iter().take_while(|byte| is_ows(byte)).count();
    trim_ows_end(&bytes[leading..])
}

fn trim_ows_end(bytes: &[u8]) -> &[u8] {
    let trailing = bytes.iter().rev().take_while(|byte| is_ows(byte)).count();
    &bytes[..bytes.len() - trailing]
}

fn is_ows(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn line_error(number: usize, reason: &'static str) -> HeadError {
    HeadError::InvalidLine { number, reason }
}

fn status_line_error(line: &[u8]) -> HeadError {
    let quoted = &line[..line.len().min(MAX_QUOTED_STATUS_LINE_BYTES)];
    HeadError::InvalidStatusLine(quoted.escape_ascii().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses a head that arrives in chunks of `size` bytes.
    fn parse_chunks(bytes: &[u8], size: usize) -> Result<Option<LenientHead>, HeadError> {
        let mut parser = LenientHeadParser::default();
        for chunk in bytes.chunks(size) {
            parser.push_bytes(chunk);
            if let Some(head) = parser.parse()? {
                return Ok(Some(head));
            }
        }
        Ok(None)
    }

    fn fields(head: &LenientHead) -> String {
        let fields = head.headers.iter();
        let lines = fields.map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes());
            format!("{name}={value};")
        });
        lines.collect()
    }

    #[test]
    fn malformed_lines_are_repaired_or_skipped() {
        for (lines, expected) in [
            ("X : a", "x=a;"),
            ("X\t: a", "x=a;"),
            ("X:a", "x=a;"),
            ("X: a \t", "x=a;"),
            ("X:", "x=;"),
            ("X: a,\r\n b", "x=a, b;"),
            ("X: a,\n\tb\n  c", "x=a, b c;"),
            ("X: a \r\n \t \r\n  b", "x=a b;"),
            ("X:\r\n a", "x=a;"),
            ("X\r\n : a", "x=a;"),
            ("X: a\r\n Content-Length: 9", "x=a Content-Length: 9;"),
            ("X Foo: a\r\nY: b", "y=b;"),
            ("X Foo: a\r\n b\r\nY: c", "y=c;"),
            ("no colon\r\nY: b", "y=b;"),
            (": no name\r\nY: b", "y=b;"),
            ("\"X\": a\r\nY: b", "y=b;"),
            ("Caf\u{e9}: a\r\nY: b", "y=b;"),
            ("Set-Cookie: a=d\x01o\r\nY: b", "y=b;"),
            ("X: a\x7fb\r\nY: b", "y=b;"),
            ("X: a\r\nX: b", "x=a;x=b;"),
            (" X: a\r\nY: b", "y=b;"),
            ("\t\r\nY: b", "y=b;"),
            ("Content-Length: 5\r\nX : a", "content-length=5;x=a;"),
            ("HTTP/1.1 200 OK\r\nY: b", "y=b;"),
        ] {
            let head = format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n");
            for size in [1, 2, 3, 1000] {
                let parsed = parse_chunks(head.as_bytes(), size).unwrap().unwrap();
                assert_eq!(fields(&parsed), expected, "{lines:?} in chunks of {size}");
            }
        }
    }

    #[test]
    fn malformed_framing_field_is_an_error() {
        for line in [
            "Content-Length : 5",
            "Content-Length\t: 5",
            "Content-Length: 5\r\n 6",
            "Content-Length:\r\n 5",
            "Content-Length\r\n : 5",
            "Content-Length",
            "Content-Length 5",
            "Content Length: 5\r\nContent-\x01Length: 5",
            "\x0cContent-Length: 5",
            "(Content-Length): 5",
            " Content-Length: 5",
            "X Content-Length: 5",
            "Content-Length: 5\x01",
            "Transfer-Encoding : chunked",
            "Transfer-Encoding: chunked\r\n ",
            "Transfer-Encoding:\r\n chunked",
            "Transfer-Encoding: \x0bchunked",
            "Transfer-Encoding: \x0cchunked",
            "Transfer-Encoding\x0b: chunked",
            "TRANSFER-ENCODING chunked",
            "\ttransfer-encoding: chunked",
            "Connection : close",
            "Connection: close,\r\n x",
            "Connection close",
            "Connection: \x01close",
        ] {
            let head = format!("HTTP/1.1 200 OK\r\n{line}\r\n\r\n");
            let error = parse_chunks(head.as_bytes(), 1000).unwrap_err();
            let is_expected = matches!(
                error,
                HeadError::InvalidLine {
                    reason: INVALID_FRAMING_FIELD,
                    ..
                }
            );
            assert!(is_expected, "{line:?}: {error}");
        }
    }

    #[test]
    fn error_gives_the_line_or_the_bound() {
        let ok = "HTTP/1.1 200 OK\r\n";
        for (head, expected) in [
            (
                "SSH-2.0-x\r\n",
                "status line of the response is invalid: \"SSH-2.0-x",
            ),
            ("S", "status line of the response is invalid: \"S\""),
            (
                "HTTP/2 200\r\n",
                "status line of the response is invalid: \"HTTP/2 200\"",
            ),
            (
                "\x00\x00",
                "status line of the response is invalid: \"\\x00\\x00\"",
            ),
            (
                &format!("{ok}X: a\r\nY: a\0b\r\n"),
                "line 3 of the response head is invalid",
            ),
            (
                &format!("{ok}X: a\rb\r\n"),
                "line 2 of the response head is invalid",
            ),
            (
                &format!("\r\nHTTP/1.1 103 x\r\nA: b\r\n\r\n{ok}Content-Length : 5\r\nX\r\n"),
                "line 2 of the response head is invalid",
            ),
            (
                &format!("{ok}X: {}", "a".repeat(MAX_HEAD_BYTES)),
                HEAD_TOO_LARGE_MESSAGE,
            ),
            (
                &format!("{ok}{}", "a:\r\n".repeat(7945)),
                HEAD_TOO_LARGE_MESSAGE,
            ),
            (
                &"HTTP/1.1 103 x\r\n\r\n".repeat(17),
                TOO_MANY_INFORMATIONAL_MESSAGE,
            ),
            (
                &format!("{ok}{}", "Connection: a\r\n".repeat(66)),
                TOO_MANY_FRAMING_FIELDS,
            ),
        ] {
            let error = parse_chunks(head.as_bytes(), 1 << 20)
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{error:?} contains {expected:?}");
        }
    }

    #[test]
    fn head_is_bounded_by_size_and_not_by_the_number_of_fields() {
        let head = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a:\r\n".repeat(7943));
        let parsed = parse_chunks(head.as_bytes(), 1 << 20).unwrap().unwrap();
        assert_eq!(parsed.headers.len(), 7943);
        assert_eq!(parsed.strict_head, b"HTTP/1.1 200 OK\r\n\r\n");
    }

    #[test]
    fn status_line_is_separated_by_any_spaces() {
        for (line, expected) in [
            ("HTTP/1.1 200 OK", Some((Version::HTTP_11, 200))),
            ("HTTP/1.1  200 OK", Some((Version::HTTP_11, 200))),
            ("HTTP/1.1 \t 200\tOK", Some((Version::HTTP_11, 200))),
            ("HTTP/1.0 404", Some((Version::HTTP_10, 404))),
            ("HTTP/1.1 200 ", Some((Version::HTTP_11, 200))),
            ("HTTP/1.1 200 \x01", Some((Version::HTTP_11, 200))),
            ("HTTP/1.1200 OK", None),
            ("HTTP/1.1 200OK", None),
            ("HTTP/1.1 20 OK", None),
            ("HTTP/1.1 2000", None),
            ("HTTP/1.1 099 No", None),
            ("HTTP/1.1 -20 No", None),
            ("HTTP/1.1", None),
            ("HTTP/1.1 ", None),
            ("HTTP/1.2 200 OK", None),
            ("HTTP/0.9 200 OK", None),
            ("http/1.1 200 OK", None),
            (" HTTP/1.1 200 OK", None),
            ("HTTP/1.1 200 O\0K", None),
            ("HTTP/1.1 200 O\rK", None),
            ("ICY 200 OK", None),
        ] {
            let parsed = parse_status_line(line.as_bytes());
            let parsed = parsed.map(|(version, status)| (version, status.as_u16()));
            assert_eq!(parsed, expected, "{line:?}");
        }
    }

    #[test]
    fn strict_head_has_only_the_framing_fields() {
        let head = b"HTTP/1.0  203 x\r\nX : a\r\nConnection: keep-alive\r\n\
            content-length: 5\r\nX Y: b\r\n\r\nhello";
        let mut parser = LenientHeadParser::default();
        parser.push_bytes(head);
        let parsed = parser.parse().unwrap().unwrap();
        let strict_head = String::from_utf8(parsed.strict_head).unwrap();
        assert_eq!(
            strict_head,
            "HTTP/1.0 203 Non Authoritative Information\r\nconnection: keep-alive\r\n\
             content-length: 5\r\n\r\n"
        );
        assert_eq!(parser.take_bytes_after_head(), b"hello");
    }

    #[test]
    fn informational_responses_are_skipped() {
        let many = "X: a\r\n".repeat(101);
        let head = format!("HTTP/1.1 103 x\r\n{many}\r\nHTTP/1.1 200 OK\r\nY: b\r\n\r\n");
        let parsed = parse_chunks(head.as_bytes(), 7).unwrap().unwrap();
        assert_eq!(fields(&parsed), "y=b;");
    }
}

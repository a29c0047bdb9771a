//! Counts informational responses (1xx) in the bytes of an HTTP/1.1 connection.

/// Counts the informational responses (1xx) in the received bytes of an HTTP/1.1 connection.
///
/// hyper skips any number of informational responses, and its callback for them costs every request
/// several allocations. This counter recognizes the final response by the tenth byte of its status
/// line, and ignores all later bytes.
#[derive(Copy, Clone)]
pub(super) struct InformationalCounter {
    /// The offset of the latest status line in the received bytes.
    status_line_offset: u32,
    informational_count: u32,
    parse_state: ParseState,
}

#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum ParseState {
    /// Within a status line. The field is the number of bytes of the status line that were scanned.
    StatusLine(u8),
    /// Within a header line of an informational response.
    HeaderLine,
    /// At the start of a line that follows the status line of an informational response.
    LineStart,
    /// Within the final response, which is not scanned.
    Final,
}

impl InformationalCounter {
    /// A counter that counts nothing, for HTTP/2 connections.
    #[cfg(feature = "http2")]
    pub(super) const DISABLED: Self = Self {
        status_line_offset: 0,
        informational_count: 0,
        parse_state: ParseState::Final,
    };

    /// The length of `HTTP/1.1 `, which precedes the status code.
    const STATUS_CODE_OFFSET: u8 = 9;

    // The values of the low byte of a packed counter. A smaller value is the number of bytes in
    // `ParseState::StatusLine`.
    const PACKED_HEADER_LINE: u64 = 0xfd;
    const PACKED_LINE_START: u64 = 0xfe;
    const PACKED_FINAL: u64 = 0xff;

    /// Unpacks a counter that [`to_packed`](Self::to_packed) packed. Zero is a new counter.
    pub(super) fn from_packed(packed: u64) -> Self {
        let state = match packed & 0xff {
            Self::PACKED_HEADER_LINE => ParseState::HeaderLine,
            Self::PACKED_LINE_START => ParseState::LineStart,
            Self::PACKED_FINAL => ParseState::Final,
            bytes => ParseState::StatusLine(bytes as u8),
        };
        Self {
            status_line_offset: (packed >> 32) as u32,
            informational_count: packed as u32 >> 8,
            parse_state: state,
        }
    }

    /// Packs the counter into an integer that fits into an atomic.
    pub(super) fn to_packed(self) -> u64 {
        let state = match self.parse_state {
            ParseState::StatusLine(bytes) => u64::from(bytes),
            ParseState::HeaderLine => Self::PACKED_HEADER_LINE,
            ParseState::LineStart => Self::PACKED_LINE_START,
            ParseState::Final => Self::PACKED_FINAL,
        };
        // The count fits into 24 bits, because the exchange fails at a much smaller count.
        u64::from(self.status_line_offset) << 32 | u64::from(self.informational_count) << 8 | state
    }

    pub(super) fn informational_count(self) -> u32 {
        self.informational_count
    }

    /// The offset of the final response head in the received bytes.
    pub(super) fn final_head_offset(self) -> u64 {
        u64::from(self.status_line_offset)
    }

    /// Scans received bytes. `offset` is the number of bytes received before them in the exchange.
    /// Returns false if the final response began earlier, so that the counter is unchanged.
    pub(super) fn scan_bytes(&mut self, bytes: &[u8], offset: u64) -> bool {
        if self.parse_state == ParseState::Final {
            return false;
        }
        for (index, &byte) in bytes.iter().enumerate() {
            self.parse_state = match (self.parse_state, byte) {
                (ParseState::StatusLine(0), b'\r' | b'\n') => {
                    self.status_line_offset = (offset + index as u64 + 1) as u32;
                    ParseState::StatusLine(0)
                }
                (ParseState::StatusLine(Self::STATUS_CODE_OFFSET), b'1') => ParseState::HeaderLine,
                (ParseState::StatusLine(Self::STATUS_CODE_OFFSET), _) | (ParseState::Final, _) => {
                    self.parse_state = ParseState::Final;
                    return true;
                }
                (ParseState::StatusLine(bytes), _) => ParseState::StatusLine(bytes + 1),
                (ParseState::LineStart, b'\n') => {
                    self.informational_count += 1;
                    self.status_line_offset = (offset + index as u64 + 1) as u32;
                    ParseState::StatusLine(0)
                }
                (ParseState::LineStart, b'\r') => ParseState::LineStart,
                (_, b'\n') => ParseState::LineStart,
                (ParseState::HeaderLine | ParseState::LineStart, _) => ParseState::HeaderLine,
            };
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn informational_responses_are_counted_across_chunk_boundaries() {
        for (text, count, final_head) in [
            ("", 0, ""),
            (
                "HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 100 no\r\n\r\n",
                0,
                "HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 100 no\r\n\r\n",
            ),
            ("HTTP/1.1 100 Continue\r\n", 0, "HTTP/1.1 100 Continue\r\n"),
            ("HTTP/1.1 100 Continue\r\n\r\n", 1, ""),
            (
                "HTTP/1.1 100 Continue\n\nHTTP/1.1 103 \r\na: b\r\nc: d\r\n\r\nHTTP/1.1 200",
                2,
                "HTTP/1.1 200",
            ),
            (
                "\r\nHTTP/1.1 102 x\r\n\r\n\r\nHTTP/1.1 103 x\n\r\nHTTP/1.1 1",
                2,
                "HTTP/1.1 1",
            ),
            ("\r\n\nHTTP/1.1 500", 0, "HTTP/1.1 500"),
        ] {
            for size in [1, 2, 3, 7, 1000] {
                let (mut packed, mut offset) = (0, 0);
                for chunk in text.as_bytes().chunks(size) {
                    let mut counter = InformationalCounter::from_packed(packed);
                    counter.scan_bytes(chunk, offset as u64);
                    packed = counter.to_packed();
                    offset += chunk.len();
                }
                let counter = InformationalCounter::from_packed(packed);
                assert_eq!(
                    counter.informational_count(),
                    count,
                    "{text:?} in chunks of {size}"
                );
                let head_start = counter.final_head_offset() as usize;
                assert_eq!(
                    &text[head_start..],
                    final_head,
                    "{text:?} in chunks of {size}"
                );
            }
        }
    }
}

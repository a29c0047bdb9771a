//! Informational answers, counted in passing.

/// How many informational answers went by, and where in a head the last byte was.
///
/// hyper skips them without end, and tells of them only through a callback that costs every request several
/// allocations. The tenth byte of a status line gives a final answer away, and nothing is looked at after it.
#[derive(Copy, Clone)]
pub(super) struct InformationalCounter {
    count: u32,
    state: ParseState,
}

#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum ParseState {
    /// So many bytes of the status line have been read, empty lines before it not counted.
    StatusLine(u8),
    /// In a head that is informational.
    HeaderLine,
    /// After a line end of such a head.
    LineEnd,
    /// In or after the head of the final answer.
    Final,
}

impl InformationalCounter {
    /// There are none to come.
    #[cfg(feature = "http2")]
    pub(super) const DISABLED: Self = Self {
        count: 0,
        state: ParseState::Final,
    };

    /// Of `HTTP/1.1 `, which precedes the status.
    const BEFORE_STATUS: u8 = 9;
    const LINE: u32 = 0xfd;
    const LINE_END: u32 = 0xfe;
    const FINAL: u32 = 0xff;

    pub(super) fn from_packed(packed: u32) -> Self {
        let state = match packed & 0xff {
            Self::LINE => ParseState::HeaderLine,
            Self::LINE_END => ParseState::LineEnd,
            Self::FINAL => ParseState::Final,
            bytes => ParseState::StatusLine(bytes as u8),
        };
        let count = packed >> 8;
        Self { count, state }
    }

    pub(super) fn to_packed(self) -> u32 {
        let state = match self.state {
            ParseState::StatusLine(bytes) => u32::from(bytes),
            ParseState::HeaderLine => Self::LINE,
            ParseState::LineEnd => Self::LINE_END,
            ParseState::Final => Self::FINAL,
        };
        // No head that could count higher is read to its end.
        self.count << 8 | state
    }

    pub(super) fn count(self) -> u32 {
        self.count
    }

    /// Takes note of the next bytes. False if there was nothing to note.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> bool {
        if self.state == ParseState::Final {
            return false;
        }
        for &byte in bytes {
            self.state = match (self.state, byte) {
                (ParseState::StatusLine(0), b'\r' | b'\n') => ParseState::StatusLine(0),
                (ParseState::StatusLine(Self::BEFORE_STATUS), b'1') => ParseState::HeaderLine,
                (ParseState::StatusLine(Self::BEFORE_STATUS), _) | (ParseState::Final, _) => {
                    self.state = ParseState::Final;
                    return true;
                }
                (ParseState::StatusLine(bytes), _) => ParseState::StatusLine(bytes + 1),
                (ParseState::LineEnd, b'\n') => {
                    self.count += 1;
                    ParseState::StatusLine(0)
                }
                (ParseState::LineEnd, b'\r') => ParseState::LineEnd,
                (_, b'\n') => ParseState::LineEnd,
                (ParseState::HeaderLine | ParseState::LineEnd, _) => ParseState::HeaderLine,
            };
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn informational_answers_are_counted_however_they_are_cut() {
        for (text, count) in [
            ("", 0),
            ("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 100 no\r\n\r\n", 0),
            ("HTTP/1.1 100 Continue\r\n", 0),
            ("HTTP/1.1 100 Continue\r\n\r\n", 1),
            (
                "HTTP/1.1 100 Continue\n\nHTTP/1.1 103 \r\na: b\r\nc: d\r\n\r\nHTTP/1.1 200",
                2,
            ),
            (
                "\r\nHTTP/1.1 102 x\r\n\r\n\r\nHTTP/1.1 103 x\n\r\nHTTP/1.1 1",
                2,
            ),
        ] {
            for size in [1, 2, 3, 7, 1000] {
                let mut packed = 0;
                for piece in text.as_bytes().chunks(size) {
                    let mut informational = InformationalCounter::from_packed(packed);
                    informational.scan(piece);
                    packed = informational.to_packed();
                }
                assert_eq!(
                    InformationalCounter::from_packed(packed).count(),
                    count,
                    "{text:?} by {size}"
                );
            }
        }
    }
}

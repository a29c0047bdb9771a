//! Informational answers, counted in passing.

/// How many informational answers went by, and where in a head the last byte was.
///
/// hyper skips them without end, and tells of them only through a callback that costs every request several
/// allocations. The tenth byte of a status line gives a final answer away, and nothing is looked at after it.
#[derive(Copy, Clone)]
pub(super) struct Interim {
    count: u32,
    at: Place,
}

#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum Place {
    /// So many bytes of the status line have been read, empty lines before it not counted.
    Status(u8),
    /// In a head that is informational.
    Line,
    /// After a line end of such a head.
    LineEnd,
    /// In or after the head of the final answer.
    Final,
}

impl Interim {
    /// There are none to come.
    #[cfg(feature = "http2")]
    pub(super) const NONE: Self = Self {
        count: 0,
        at: Place::Final,
    };

    /// Of `HTTP/1.1 `, which precedes the status.
    const BEFORE_STATUS: u8 = 9;
    const LINE: u32 = 0xfd;
    const LINE_END: u32 = 0xfe;
    const FINAL: u32 = 0xff;

    pub(super) fn unpacked(packed: u32) -> Self {
        let at = match packed & 0xff {
            Self::LINE => Place::Line,
            Self::LINE_END => Place::LineEnd,
            Self::FINAL => Place::Final,
            bytes => Place::Status(bytes as u8),
        };
        let count = packed >> 8;
        Self { count, at }
    }

    pub(super) fn packed(self) -> u32 {
        let at = match self.at {
            Place::Status(bytes) => u32::from(bytes),
            Place::Line => Self::LINE,
            Place::LineEnd => Self::LINE_END,
            Place::Final => Self::FINAL,
        };
        // No head that could count higher is read to its end.
        self.count << 8 | at
    }

    pub(super) fn count(self) -> u32 {
        self.count
    }

    /// Takes note of the next bytes. False if there was nothing to note.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> bool {
        if self.at == Place::Final {
            return false;
        }
        for &byte in bytes {
            self.at = match (self.at, byte) {
                (Place::Status(0), b'\r' | b'\n') => Place::Status(0),
                (Place::Status(Self::BEFORE_STATUS), b'1') => Place::Line,
                (Place::Status(Self::BEFORE_STATUS), _) | (Place::Final, _) => {
                    self.at = Place::Final;
                    return true;
                }
                (Place::Status(bytes), _) => Place::Status(bytes + 1),
                (Place::LineEnd, b'\n') => {
                    self.count += 1;
                    Place::Status(0)
                }
                (Place::LineEnd, b'\r') => Place::LineEnd,
                (_, b'\n') => Place::LineEnd,
                (Place::Line | Place::LineEnd, _) => Place::Line,
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
                    let mut interim = Interim::unpacked(packed);
                    interim.pass(piece);
                    packed = interim.packed();
                }
                assert_eq!(
                    Interim::unpacked(packed).count(),
                    count,
                    "{text:?} by {size}"
                );
            }
        }
    }
}

//! The record beside a part file: what the part file holds, and which download writes it.
//!
//! ```text
//! fanout part 1
//! owner 9f86d081884c7d65
//! url 2c26b46b68ffc68f
//! total 20000
//! validator "v1"
//! coding gzip
//! end
//! ```
//!
//! The record has the hash of the URL and not the URL itself, which may contain a credential.

use std::hash::{DefaultHasher, Hash, Hasher};

use http::header::HeaderValue;
use url::Url;

const RECORD_FIRST_LINE: &[u8] = b"fanout part 1";
/// The last line of a record. A record without this line is incomplete.
const RECORD_LAST_LINE: &[u8] = b"end";

/// The hash of a URL. The hash may change with the version of Rust, and a part file with another
/// hash is not resumed.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(in crate::response_body) struct UrlHash(u64);

impl UrlHash {
    pub(in crate::response_body) fn of(url: &Url) -> Self {
        let mut hasher = DefaultHasher::new();
        url.as_str().hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// The representation (RFC 9110 §8) whose beginning a part file holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::response_body) struct Representation {
    pub(in crate::response_body) url_hash: UrlHash,
    /// The `ETag` or `Last-Modified` of the representation, which a range request sends in
    /// `If-Range`. `None` if the download cannot be resumed.
    pub(in crate::response_body) validator: Option<HeaderValue>,
    /// The `Content-Encoding` of the saved bytes; `None` if the bytes are not encoded.
    pub(in crate::response_body) content_coding: Option<HeaderValue>,
    /// The length of the whole representation; `None` if it is unknown.
    pub(in crate::response_body) total_length: Option<u64>,
}

/// A random number that identifies the download that writes a part file.
pub(super) type OwnerDownloadId = u64;

/// The content of the record file. Only a download with a validator has a record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct PartRecord {
    pub(super) owner_download_id: OwnerDownloadId,
    pub(super) representation: Representation,
}

impl PartRecord {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let Representation {
            url_hash: UrlHash(url_hash),
            validator,
            content_coding,
            total_length,
        } = &self.representation;
        let mut bytes = RECORD_FIRST_LINE.to_vec();
        bytes.extend(
            format!(
                "\nowner {:016x}\nurl {url_hash:016x}\n",
                self.owner_download_id
            )
            .bytes(),
        );
        if let Some(total_length) = total_length {
            bytes.extend(format!("total {total_length}\n").bytes());
        }
        for (name, value) in [("validator ", validator), ("coding ", content_coding)] {
            if let Some(value) = value {
                bytes.extend_from_slice(name.as_bytes());
                bytes.extend_from_slice(value.as_bytes());
                bytes.push(b'\n');
            }
        }
        bytes.extend_from_slice(RECORD_LAST_LINE);
        bytes.push(b'\n');
        bytes
    }

    /// Parses a record. `None` if the record is incomplete or has another format.
    pub(super) fn parse_record(bytes: &[u8]) -> Option<Self> {
        let lines = bytes.strip_suffix(b"\n")?.split(|byte| *byte == b'\n');
        let mut lines = lines.peekable();
        (lines.next()? == RECORD_FIRST_LINE).then_some(())?;
        let owner = parse_hex(lines.next()?.strip_prefix(b"owner ")?)?;
        let url_hash = UrlHash(parse_hex(lines.next()?.strip_prefix(b"url ")?)?);
        let mut field = |name: &[u8]| {
            let value = lines.peek()?.strip_prefix(name)?;
            lines.next();
            Some(value)
        };
        let total_length = match field(b"total ") {
            Some(digits) => Some(std::str::from_utf8(digits).ok()?.parse().ok()?),
            None => None,
        };
        let validator = field(b"validator ").map(HeaderValue::from_bytes);
        let validator = validator.transpose().ok()?;
        let content_coding = field(b"coding ").map(HeaderValue::from_bytes);
        let content_coding = content_coding.transpose().ok()?;
        let is_complete = lines.next()? == RECORD_LAST_LINE && lines.next().is_none();
        is_complete.then_some(Self {
            owner_download_id: owner,
            representation: Representation {
                url_hash,
                validator,
                content_coding,
                total_length,
            },
        })
    }
}

fn parse_hex(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(validator: Option<HeaderValue>, total_length: Option<u64>) -> PartRecord {
        let url = "http://a.example/?key=s3cr3t".parse().unwrap();
        PartRecord {
            owner_download_id: u64::MAX,
            representation: Representation {
                url_hash: UrlHash::of(&url),
                content_coding: validator
                    .is_some()
                    .then(|| HeaderValue::from_static("gzip")),
                validator,
                total_length,
            },
        }
    }

    #[test]
    fn record_survives_a_round_trip() {
        let not_utf8 = HeaderValue::from_bytes(b"\"caf\xe9\"").unwrap();
        for record in [
            record(None, None),
            record(Some(HeaderValue::from_static("\"v 1\"")), Some(u64::MAX)),
            record(Some(not_utf8), None),
        ] {
            assert_eq!(PartRecord::parse_record(&record.to_bytes()), Some(record));
        }
    }

    #[test]
    fn incomplete_or_changed_record_is_rejected() {
        let validator = Some(HeaderValue::from_static("\"v1\""));
        let bytes = record(validator, Some(10)).to_bytes();
        for length in 0..bytes.len() {
            assert_eq!(PartRecord::parse_record(&bytes[..length]), None, "{length}");
        }
        let text = String::from_utf8(bytes).unwrap();
        assert!(!text.contains("s3cr3t"));
        for (from, to) in [
            ("part 1", "part 2"),
            ("total 10", "total x"),
            ("owner f", "owner g"),
            ("end\n", "end\nend\n"),
            ("validator", "other"),
            ("coding", "other"),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_eq!(
                PartRecord::parse_record(changed.as_bytes()),
                None,
                "{changed}"
            );
        }
    }
}

//! The script of each path: the bytes of the response and the action after them.

use super::{connection::Request, log::RequestLog};
use http::{Method, StatusCode};
use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

/// The reaction of a server to a request: wait, write the bytes, then act as `after` says.
pub(super) struct Script {
    /// Whether to wait for [`release_held`](super::FaultServer::release_held) first.
    pub(super) is_held: bool,
    pub(super) wait: Duration,
    pub(super) bytes: Vec<u8>,
    pub(super) after: AfterBytes,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum AfterBytes {
    KeepAlive,
    /// FIN.
    Close,
    /// RST.
    Reset,
    /// Sends nothing until the client closes.
    Stall,
    /// Sends chunks until the client closes.
    Endless,
    /// Sends this many more bytes at an interval, then keeps the connection alive.
    Drip(usize, Duration),
}

/// The body of `/ok/<n>`: 16 to 515 printable bytes that depend on `n` alone.
pub fn expected_body(n: u64) -> Vec<u8> {
    let mut state = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5DEE_CE66;
    let length = 16 + usize::try_from(state % 500).expect("small");
    let mut body = format!("{n}:").into_bytes();
    while body.len() < length {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        body.push(b'!' + (state >> 57) as u8 % 94);
    }
    body
}

/// Returns the body of `/bytes/<n>` and `/big/<n>`: exactly `n` bytes.
pub fn pattern_bytes(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i % 251) as u8).collect()
}

pub(super) fn script(request: &Request, log: &RequestLog) -> Script {
    let (path, query) = split_target(&request.target);
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    script_for(&segments, query, request, log)
        .unwrap_or_else(|| ResponseBuilder::new(404, "no such path").build(request))
}

/// Returns the path and the query of a target in origin form or, as sent to a proxy, in absolute
/// form.
fn split_target(target: &str) -> (&str, &str) {
    let origin_form = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => target,
    };
    origin_form.split_once('?').unwrap_or((origin_form, ""))
}

fn script_for(
    segments: &[&str],
    query: &str,
    request: &Request,
    log: &RequestLog,
) -> Option<Script> {
    match segments {
        ["held", rest @ ..] => {
            let mut script = script_for(rest, query, request, log)?;
            script.is_held = true;
            Some(script)
        }
        ["delay", ms, rest @ ..] => {
            let number = rest.first().and_then(|n| n.parse().ok()).unwrap_or(0);
            let mut script = script_for(rest, query, request, log)
                .unwrap_or_else(|| ResponseBuilder::new(200, expected_body(number)).build(request));
            script.wait += Duration::from_millis(ms.parse().ok()?);
            Some(script)
        }
        ["flaky", key, fault_count, fault @ ..] => {
            if !log.count_flaky_request(key, fault_count.parse().ok()?) {
                return Some(ResponseBuilder::new(200, expected_body(0)).build(request));
            }
            match fault {
                [code] if code.parse::<u16>().is_ok() => status(code, query, request),
                _ => script_for(fault, query, request, log),
            }
        }
        ["status", code] => status(code, query, request),
        _ => response(segments, query, request).or_else(|| fault(segments, request)),
    }
}

/// The scripts of the paths with a valid response.
fn response(segments: &[&str], query: &str, request: &Request) -> Option<Script> {
    let builder = match segments {
        ["ok", n] => ResponseBuilder::new(200, expected_body(n.parse().ok()?)),
        ["bytes", n] => ResponseBuilder::new(200, pattern_bytes(n.parse().ok()?)),
        ["big", n] => ResponseBuilder::new(200, pattern_bytes(n.parse().ok()?)).chunked(8192),
        ["chunked", n] => ResponseBuilder::new(200, expected_body(n.parse().ok()?)).chunked(7),
        ["until-close", n] => {
            ResponseBuilder::new(200, expected_body(n.parse().ok()?)).until_close()
        }
        ["close", n] => ResponseBuilder::new(200, expected_body(n.parse().ok()?)).close(),
        ["ok-then-close", n] => {
            let mut script =
                ResponseBuilder::new(200, expected_body(n.parse().ok()?)).build(request);
            script.after = AfterBytes::Close;
            return Some(script);
        }
        ["keep-alive", seconds] => ResponseBuilder::new(200, expected_body(0))
            .header("keep-alive", format!("timeout={seconds}")),
        ["header", n] => ResponseBuilder::new(200, expected_body(0))
            .header("x-long", "h".repeat(n.parse().ok()?)),
        ["echo"] => {
            ResponseBuilder::new(200, echo(request)).header("content-type", "application/json")
        }
        ["gone"] => ResponseBuilder::new(410, "gone"),
        ["redirect", code] => ResponseBuilder::new(code.parse().ok()?, "elsewhere")
            .header("location", parameter(query, "to")?),
        ["hops", remaining] => match remaining.parse::<u32>().ok()? {
            0 => ResponseBuilder::new(200, expected_body(0)),
            remaining => ResponseBuilder::new(302, "onward")
                .header("location", format!("/hops/{}", remaining - 1)),
        },
        _ => return None,
    };
    Some(builder.build(request))
}

/// The script of `/status/<code>`. `?retry_after=<text>` is sent unchanged, and
/// `?retry_after_date=<seconds from now>` as an HTTP-date.
fn status(code: &str, query: &str, request: &Request) -> Option<Script> {
    let code = code.parse().ok()?;
    let mut builder = ResponseBuilder::new(code, format!("status {code}"));
    if let Some(value) = parameter(query, "retry_after") {
        builder = builder.header("retry-after", value);
    }
    if let Some(seconds) = parameter(query, "retry_after_date") {
        let date = SystemTime::now() + Duration::from_secs(seconds.parse().ok()?);
        builder = builder.header("retry-after", httpdate::fmt_http_date(date));
    }
    Some(builder.build(request))
}

/// The scripts of the paths that break the protocol or the connection.
fn fault(segments: &[&str], request: &Request) -> Option<Script> {
    let complete = ResponseBuilder::new(200, expected_body(0))
        .build(request)
        .bytes;
    let missing = match request.method {
        Method::HEAD => 0,
        _ => expected_body(0).len() / 2,
    };
    let half_body = || complete[..complete.len() - missing].to_vec();
    let (bytes, after) = match segments {
        ["reset-before"] => (Vec::new(), AfterBytes::Reset),
        ["close-before"] => (Vec::new(), AfterBytes::Close),
        ["half-head"] => (b"HTTP/1.1 200 OK\r\ncontent-le".to_vec(), AfterBytes::Close),
        ["reset-after-head"] => (half_body(), AfterBytes::Reset),
        ["stall-head"] => (Vec::new(), AfterBytes::Stall),
        ["stall-body"] => (half_body(), AfterBytes::Stall),
        ["truncated"] => (half_body(), AfterBytes::Close),
        ["truncated-chunks"] => (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\nhalf".to_vec(),
            AfterBytes::Close,
        ),
        ["malformed"] => (b"this is not HTTP\r\n\r\n".to_vec(), AfterBytes::Close),
        ["endless"] => (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
            AfterBytes::Endless,
        ),
        ["drip", n, ms] => {
            let count: usize = n.parse().ok()?;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {count}\r\n\r\n");
            let interval = Duration::from_millis(ms.parse().ok()?);
            (head.into_bytes(), AfterBytes::Drip(count, interval))
        }
        ["interim", n] => {
            let mut bytes = b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(n.parse().ok()?);
            bytes.extend_from_slice(&complete);
            (bytes, AfterBytes::KeepAlive)
        }
        ["length-and-chunked"] => (
            b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
                .to_vec(),
            AfterBytes::KeepAlive,
        ),
        ["two-lengths"] => (
            b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nbody!".to_vec(),
            AfterBytes::KeepAlive,
        ),
        _ => return None,
    };
    Some(Script {
        is_held: false,
        wait: Duration::ZERO,
        bytes,
        after,
    })
}

fn parameter(query: &str, name: &str) -> Option<String> {
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

/// `{"method":…,"path":…,"headers":[[name,value],…],"body":…}`
fn echo(request: &Request) -> String {
    let headers: Vec<String> = request
        .headers
        .iter()
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes());
            format!("[{},{}]", quoted(name.as_str()), quoted(&value))
        })
        .collect();
    format!(
        "{{\"method\":{},\"path\":{},\"headers\":[{}],\"body\":{}}}",
        quoted(request.method.as_str()),
        quoted(&request.target),
        headers.join(","),
        quoted(&String::from_utf8_lossy(&request.body)),
    )
}

/// A JSON string (RFC 8259, section 7).
fn quoted(text: &str) -> String {
    let mut json = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            c if c < ' ' => write!(json, "\\u{:04x}", u32::from(c)).expect("infallible"),
            c => json.push(c),
        }
    }
    json.push('"');
    json
}

enum Framing {
    Length,
    Chunks(usize),
    UntilClose,
}

struct ResponseBuilder {
    status: u16,
    headers: String,
    body: Vec<u8>,
    framing: Framing,
    close: bool,
}

impl ResponseBuilder {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: String::new(),
            body: body.into(),
            framing: Framing::Length,
            close: false,
        }
    }

    fn header(mut self, name: &str, value: impl AsRef<str>) -> Self {
        write!(self.headers, "{name}: {}\r\n", value.as_ref()).expect("infallible");
        self
    }

    fn chunked(mut self, chunk_size: usize) -> Self {
        self.framing = Framing::Chunks(chunk_size);
        self.header("transfer-encoding", "chunked")
    }

    fn close(mut self) -> Self {
        self.close = true;
        self
    }

    fn until_close(mut self) -> Self {
        self.framing = Framing::UntilClose;
        self.close()
    }

    fn build(mut self, request: &Request) -> Script {
        let has_no_body = self.status < 200 || matches!(self.status, 204 | 304);
        if matches!(self.framing, Framing::Length) && !has_no_body {
            let length = self.body.len().to_string();
            self = self.header("content-length", length);
        }
        let close = self.close || !request.keep_alive;
        if close {
            self = self.header("connection", "close");
        }
        let reason = StatusCode::from_u16(self.status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or("Unknown");
        let head = format!("HTTP/1.1 {} {reason}\r\n{}\r\n", self.status, self.headers);
        let mut bytes = head.into_bytes();
        if request.method != Method::HEAD && !has_no_body {
            self.write_body(&mut bytes);
        }
        Script {
            is_held: false,
            wait: Duration::ZERO,
            bytes,
            after: if close {
                AfterBytes::Close
            } else {
                AfterBytes::KeepAlive
            },
        }
    }

    fn write_body(&self, bytes: &mut Vec<u8>) {
        let Framing::Chunks(size) = self.framing else {
            bytes.extend_from_slice(&self.body);
            return;
        };
        for chunk in self.body.chunks(size) {
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
    }
}

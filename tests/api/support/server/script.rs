//! What each path does: a path and a request become bytes and an ending.

use super::{connection::Request, log::RequestLog};
use http::{Method, StatusCode};
use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

/// What the server does with one request: wait, write the bytes, after the ending.
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
    /// Silence until the client closes.
    Stall,
    /// Chunks until the client closes.
    Endless,
    /// That many bytes more, one every so often, after keep alive.
    Drip(usize, Duration),
}

/// The body of `/ok/<n>`: 16 to 515 printable bytes, a function of `n` alone.
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

/// The body of `/bytes/<n>` and `/big/<n>`: exactly `n` bytes.
pub fn pattern_bytes(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i % 251) as u8).collect()
}

pub(super) fn script(request: &Request, log: &RequestLog) -> Script {
    let (path, query) = split_target(&request.target);
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    behaviour(&segments, query, request, log)
        .unwrap_or_else(|| ResponseBuilder::of(404, "no such path").send(request))
}

/// Path and query of a target in origin form or, as a proxy gets it, in absolute form.
fn split_target(target: &str) -> (&str, &str) {
    let origin_form = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => target,
    };
    origin_form.split_once('?').unwrap_or((origin_form, ""))
}

fn behaviour(
    segments: &[&str],
    query: &str,
    request: &Request,
    log: &RequestLog,
) -> Option<Script> {
    match segments {
        ["held", rest @ ..] => {
            let mut script = behaviour(rest, query, request, log)?;
            script.is_held = true;
            Some(script)
        }
        ["delay", ms, rest @ ..] => {
            let number = rest.first().and_then(|n| n.parse().ok()).unwrap_or(0);
            let mut script = behaviour(rest, query, request, log)
                .unwrap_or_else(|| ResponseBuilder::of(200, expected_body(number)).send(request));
            script.wait += Duration::from_millis(ms.parse().ok()?);
            Some(script)
        }
        ["flaky", key, first, fault @ ..] => {
            if !log.is_fault_due(key, first.parse().ok()?) {
                return Some(ResponseBuilder::of(200, expected_body(0)).send(request));
            }
            match fault {
                [code] if code.parse::<u16>().is_ok() => status(code, query, request),
                _ => behaviour(fault, query, request, log),
            }
        }
        ["status", code] => status(code, query, request),
        _ => answer(segments, query, request).or_else(|| fault(segments, request)),
    }
}

/// The paths that answer properly.
fn answer(segments: &[&str], query: &str, request: &Request) -> Option<Script> {
    let reply = match segments {
        ["ok", n] => ResponseBuilder::of(200, expected_body(n.parse().ok()?)),
        ["bytes", n] => ResponseBuilder::of(200, pattern_bytes(n.parse().ok()?)),
        ["big", n] => ResponseBuilder::of(200, pattern_bytes(n.parse().ok()?)).chunked(8192),
        ["chunked", n] => ResponseBuilder::of(200, expected_body(n.parse().ok()?)).chunked(7),
        ["until-close", n] => {
            ResponseBuilder::of(200, expected_body(n.parse().ok()?)).until_close()
        }
        ["close", n] => ResponseBuilder::of(200, expected_body(n.parse().ok()?)).close(),
        ["ok-then-close", n] => {
            let mut script = ResponseBuilder::of(200, expected_body(n.parse().ok()?)).send(request);
            script.after = AfterBytes::Close;
            return Some(script);
        }
        ["keep-alive", seconds] => ResponseBuilder::of(200, expected_body(0))
            .header("keep-alive", format!("timeout={seconds}")),
        ["header", n] => {
            ResponseBuilder::of(200, expected_body(0)).header("x-long", "h".repeat(n.parse().ok()?))
        }
        ["echo"] => {
            ResponseBuilder::of(200, echo(request)).header("content-type", "application/json")
        }
        ["gone"] => ResponseBuilder::of(410, "gone"),
        ["redirect", code] => ResponseBuilder::of(code.parse().ok()?, "elsewhere")
            .header("location", parameter(query, "to")?),
        ["hops", left] => match left.parse::<u32>().ok()? {
            0 => ResponseBuilder::of(200, expected_body(0)),
            left => {
                ResponseBuilder::of(302, "onward").header("location", format!("/hops/{}", left - 1))
            }
        },
        _ => return None,
    };
    Some(reply.send(request))
}

/// `?retry_after=<anything>` is sent as it is; `?retry_after_date=<seconds from now>` as an HTTP-date.
fn status(code: &str, query: &str, request: &Request) -> Option<Script> {
    let code = code.parse().ok()?;
    let mut reply = ResponseBuilder::of(code, format!("status {code}"));
    if let Some(value) = parameter(query, "retry_after") {
        reply = reply.header("retry-after", value);
    }
    if let Some(seconds) = parameter(query, "retry_after_date") {
        let date = SystemTime::now() + Duration::from_secs(seconds.parse().ok()?);
        reply = reply.header("retry-after", httpdate::fmt_http_date(date));
    }
    Some(reply.send(request))
}

/// The paths that break the protocol, or the connection.
fn fault(segments: &[&str], request: &Request) -> Option<Script> {
    let whole = ResponseBuilder::of(200, expected_body(0))
        .send(request)
        .bytes;
    let missing = match request.method {
        Method::HEAD => 0,
        _ => expected_body(0).len() / 2,
    };
    let half_body = || whole[..whole.len() - missing].to_vec();
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
            let left: usize = n.parse().ok()?;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {left}\r\n\r\n");
            let every = Duration::from_millis(ms.parse().ok()?);
            (head.into_bytes(), AfterBytes::Drip(left, every))
        }
        ["interim", n] => {
            let mut bytes = b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(n.parse().ok()?);
            bytes.extend_from_slice(&whole);
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
            c if c < ' ' => write!(json, "\\u{:04x}", u32::from(c)).expect("a String takes all"),
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
    fn of(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: String::new(),
            body: body.into(),
            framing: Framing::Length,
            close: false,
        }
    }

    fn header(mut self, name: &str, value: impl AsRef<str>) -> Self {
        write!(self.headers, "{name}: {}\r\n", value.as_ref()).expect("a String takes all");
        self
    }

    fn chunked(mut self, chunk: usize) -> Self {
        self.framing = Framing::Chunks(chunk);
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

    fn send(mut self, request: &Request) -> Script {
        let bodiless = self.status < 200 || matches!(self.status, 204 | 304);
        if matches!(self.framing, Framing::Length) && !bodiless {
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
        if request.method != Method::HEAD && !bodiless {
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

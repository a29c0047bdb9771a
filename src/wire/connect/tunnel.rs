//! Tunnels through an HTTP proxy with `CONNECT` (RFC 9110 §9.3.6).
//!
//! hyper-util's `Tunnel` is not used, because it fails the tests `any_2xx_opens_the_tunnel`,
//! `other_responses_are_classified` and `bytes_after_the_head_are_rejected`.

use http::StatusCode;
use http::header::HeaderValue;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use url::Host;

use crate::error::{Error, ErrorKind};

/// The maximum size of the head of the proxy's response, in bytes.
const MAX_RESPONSE_HEAD_BYTES: usize = 16 * 1024;
const MAX_RESPONSE_HEADERS: usize = 64;

/// Requests a tunnel to `host` from the proxy at the other end of `stream`.
///
/// After success, `stream` is connected to the host.
///
/// # Cancel safety
///
/// Not cancel safe. If the future is dropped, `stream` must be dropped too.
pub(super) async fn establish_tunnel<S>(
    stream: &mut S,
    host: &Host<&str>,
    port: u16,
    authorization: Option<&HeaderValue>,
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request =
        format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n").into_bytes();
    if let Some(value) = authorization {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(value.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    let io_error =
        |error| Error::new(ErrorKind::Proxy, error).with_detail("the connection to it was lost");
    stream.write_all(&request).await.map_err(io_error)?;
    stream.flush().await.map_err(io_error)?;

    let mut response = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut response).await.map_err(io_error)? == 0 {
            return Err(proxy_error(
                "it closed the connection before its response was complete",
            ));
        }
        while let Some(head) = parse_head(&response)? {
            if (100..200).contains(&head.status) && head.status != 101 {
                response.drain(..head.head_length);
                continue;
            }
            return check_final_response(head, response.len());
        }
        if response.len() > MAX_RESPONSE_HEAD_BYTES {
            return Err(proxy_error("the head of its response is too large"));
        }
    }
}

struct ResponseHead {
    status: u16,
    /// The length of the head in bytes.
    head_length: usize,
}

/// Parses a response head. Returns `None` if the head is incomplete.
fn parse_head(bytes: &[u8]) -> Result<Option<ResponseHead>, Error> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_RESPONSE_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(head_length)) => {
            Ok(response.code.map(|status| ResponseHead {
                status,
                head_length,
            }))
        }
        Ok(httparse::Status::Partial) => Ok(None),
        Err(error) => {
            Err(Error::new(ErrorKind::Proxy, error).with_detail("its response is not HTTP"))
        }
    }
}

/// Returns an error unless the final response is 2xx. `received` is the number of bytes read so
/// far, including the bytes after the head.
///
/// Bytes after the head of a 2xx response are an error. The host cannot have sent them, because it
/// has received nothing yet.
fn check_final_response(head: ResponseHead, received: usize) -> Result<(), Error> {
    match head.status {
        200..300 if received == head.head_length => Ok(()),
        200..300 => Err(proxy_error(
            "there are more bytes after the head of its response",
        )),
        407 => Err(Error::from_kind(ErrorKind::ProxyRefused)
            .with_detail("it responded 407: credentials are missing or invalid")),
        status => {
            // A client error (4xx) is a permanent refusal (RFC 9110 §15.5), except for 408 and 429.
            let kind = match status {
                408 | 429 => ErrorKind::Proxy,
                400..500 => ErrorKind::ProxyRefused,
                _ => ErrorKind::Proxy,
            };
            let reason = StatusCode::from_u16(status).ok();
            let reason = reason.and_then(|status| status.canonical_reason());
            Err(Error::from_kind(kind).with_detail(match reason {
                Some(reason) => format!("it responded {status} {reason}"),
                None => format!("it responded {status}"),
            }))
        }
    }
}

fn proxy_error(reason: &'static str) -> Error {
    Error::from_kind(ErrorKind::Proxy).with_detail(reason)
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// Requests a tunnel from a proxy that sends `response` and closes. A first proxy sends
    /// `response` byte by byte, a second one all at once. Returns the outcome of the second
    /// request.
    async fn tunnel_outcome(response: &str) -> Result<(), Error> {
        let mut outcomes = Vec::new();
        for buffer_size in [1, 1 << 20] {
            let (mut near, mut far) = duplex(buffer_size);
            let response = response.to_owned();
            let proxy = tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    far.read_buf(&mut request).await.unwrap();
                }
                let _ = far.write_all(response.as_bytes()).await;
            });
            outcomes.push(establish_tunnel(&mut near, &Host::Domain("a.example"), 443, None).await);
            drop(near);
            proxy.await.unwrap();
        }
        outcomes.pop().unwrap()
    }

    #[tokio::test]
    async fn the_request_has_host_port_and_credentials() {
        let (mut near, mut far) = duplex(1024);
        let value = HeaderValue::from_static("Basic Zm9v");
        let host = Host::Ipv6(std::net::Ipv6Addr::LOCALHOST);
        far.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        establish_tunnel(&mut near, &host, 443, Some(&value))
            .await
            .unwrap();
        drop(near);
        let mut request = String::new();
        far.read_to_string(&mut request).await.unwrap();
        assert_eq!(
            request,
            "CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\nProxy-Authorization: Basic Zm9v\r\n\r\n"
        );
    }

    #[tokio::test]
    async fn any_2xx_opens_the_tunnel() {
        for response in [
            "HTTP/1.1 200 Connection established\r\n\r\n",
            "HTTP/1.0 200\r\nProxy-Agent: x\r\n\r\n",
            "HTTP/1.1 204 Fine\r\nContent-Length: 10\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        ] {
            tunnel_outcome(response).await.unwrap();
        }
    }

    #[tokio::test]
    async fn other_responses_are_classified() {
        let unterminated = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(40_000));
        let many_headers = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(100));
        let informational = "HTTP/1.1 103 Hints\r\n\r\n".repeat(3);
        let (proxy, refused) = (ErrorKind::Proxy, ErrorKind::ProxyRefused);
        for (response, kind) in [
            (
                "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
                refused,
            ),
            (
                "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
                refused,
            ),
            ("HTTP/1.1 405 Method Not Allowed\r\n\r\n", refused),
            ("HTTP/1.1 429 Too Many Requests\r\n\r\n", proxy),
            ("HTTP/1.1 502 Bad Gateway\r\n\r\n", proxy),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", proxy),
            ("HTTP/1.1 504 Gateway Timeout\r\n\r\n", proxy),
            ("HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n", proxy),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", proxy),
            ("HTTP/1.1 999 What\r\n\r\n", proxy),
            ("", proxy),
            ("HTTP/1.1 200 O", proxy),
            ("HTTP/1.1 200 OK\r\nA: b\r\n", proxy),
            ("SSH-2.0-OpenSSH_9.6\r\n", proxy),
            ("\x15\x03\x01\x00\x02\x02\x46", proxy),
            ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", proxy),
            ("HTTP/1.1 20 OK\r\n\r\n", proxy),
            (&unterminated, proxy),
            (&many_headers, proxy),
            (&informational, proxy),
        ] {
            let error = tunnel_outcome(response).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{response}: {error}");
            assert!(!error.maybe_sent(), "{response}");
        }
    }

    #[tokio::test]
    async fn bytes_after_the_head_are_rejected() {
        let (mut near, mut far) = duplex(1024);
        far.write_all(b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")
            .await
            .unwrap();
        let error = establish_tunnel(&mut near, &Host::Domain("a.example"), 443, None)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Proxy);
    }
}

//! Connections through a SOCKS5 proxy (RFC 1928), with username/password authentication (RFC 1929).
//!
//! hyper-util's `SocksV5` is not used, because it fails the tests
//! `credentials_are_sent_only_if_requested`, `bytes_after_the_reply_are_not_read` and
//! `refusals_are_distinguished_from_failures`.

use std::io;
use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use url::Host;

use crate::error::{Error, ErrorKind};
use crate::proxy::ProxyCredentials;

const SOCKS_VERSION: u8 = 5;
const PASSWORD_AUTH_VERSION: u8 = 1;
const AUTH_METHOD_NONE: u8 = 0;
const AUTH_METHOD_PASSWORD: u8 = 2;
const NO_ACCEPTABLE_AUTH_METHOD: u8 = 0xff;
const COMMAND_CONNECT: u8 = 1;
const ADDRESS_TYPE_IPV4: u8 = 1;
const ADDRESS_TYPE_NAME: u8 = 3;
const ADDRESS_TYPE_IPV6: u8 = 4;

/// Requests a connection to `host` from the proxy at the other end of `stream`.
///
/// After success, `stream` is connected to the host. No byte after the proxy's reply has been read,
/// because the host sends these bytes.
///
/// # Cancel safety
///
/// Not cancel safe. If the future is dropped, `stream` must be dropped too.
pub(super) async fn handshake<S>(
    stream: &mut S,
    host: &Host<&str>,
    port: u16,
    credentials: Option<&ProxyCredentials>,
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    negotiate_and_authenticate(stream, credentials).await?;
    let mut request = vec![SOCKS_VERSION, COMMAND_CONNECT, 0];
    match *host {
        Host::Ipv4(address) => push_ip_address(&mut request, address.into()),
        Host::Ipv6(address) => push_ip_address(&mut request, address.into()),
        Host::Domain(name) => {
            let Ok(length) = u8::try_from(name.len()) else {
                return Err(refused_error("the host name is too long for SOCKS"));
            };
            request.extend([ADDRESS_TYPE_NAME, length]);
            request.extend_from_slice(name.as_bytes());
        }
    }
    request.extend(port.to_be_bytes());
    stream.write_all(&request).await.map_err(io_error)?;
    let [version, reply, _, address_type] = read_array(stream).await?;
    check_version(version, SOCKS_VERSION)?;
    if reply != 0 {
        return Err(reply_code_error(reply));
    }
    // The bound address is unused but must be read. The bytes after it come from the host.
    let length = match address_type {
        ADDRESS_TYPE_IPV4 => 4,
        ADDRESS_TYPE_IPV6 => 16,
        ADDRESS_TYPE_NAME => usize::from(read_array::<1, S>(stream).await?[0]),
        _ => return Err(protocol_error()),
    };
    let mut bound_address = [0; 255 + 2];
    stream
        .read_exact(&mut bound_address[..length + 2])
        .await
        .map_err(io_error)?;
    Ok(())
}

/// Negotiates an authentication method and authenticates with it.
async fn negotiate_and_authenticate<S>(
    stream: &mut S,
    credentials: Option<&ProxyCredentials>,
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let methods: &[u8] = match credentials {
        Some(_) => &[SOCKS_VERSION, 2, AUTH_METHOD_NONE, AUTH_METHOD_PASSWORD],
        None => &[SOCKS_VERSION, 1, AUTH_METHOD_NONE],
    };
    stream.write_all(methods).await.map_err(io_error)?;
    let [version, method] = read_array(stream).await?;
    check_version(version, SOCKS_VERSION)?;
    match (method, credentials) {
        (AUTH_METHOD_NONE, _) => Ok(()),
        (AUTH_METHOD_PASSWORD, Some(credentials)) => {
            authenticate_with_password(stream, credentials).await
        }
        (NO_ACCEPTABLE_AUTH_METHOD, Some(_)) => Err(refused_error(
            "it accepts neither username/password nor no authentication",
        )),
        (NO_ACCEPTABLE_AUTH_METHOD, None) => Err(refused_error("it requires credentials")),
        _ => Err(protocol_error()),
    }
}

async fn authenticate_with_password<S>(
    stream: &mut S,
    credentials: &ProxyCredentials,
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = vec![PASSWORD_AUTH_VERSION];
    for text in [&credentials.user, &credentials.password] {
        // The length fits into a byte, because the parser of proxy URLs rejects longer credentials.
        request.push(text.len() as u8);
        request.extend_from_slice(text);
    }
    stream.write_all(&request).await.map_err(io_error)?;
    let [version, status] = read_array(stream).await?;
    check_version(version, PASSWORD_AUTH_VERSION)?;
    match status {
        0 => Ok(()),
        _ => Err(refused_error("it rejected the credentials")),
    }
}

fn push_ip_address(request: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            request.push(ADDRESS_TYPE_IPV4);
            request.extend(address.octets());
        }
        IpAddr::V6(address) => {
            request.push(ADDRESS_TYPE_IPV6);
            request.extend(address.octets());
        }
    }
}

async fn read_array<const N: usize, S>(stream: &mut S) -> Result<[u8; N], Error>
where
    S: AsyncRead + Unpin,
{
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await.map_err(io_error)?;
    Ok(bytes)
}

fn check_version(version: u8, expected: u8) -> Result<(), Error> {
    if version == expected {
        Ok(())
    } else {
        Err(protocol_error())
    }
}

/// Maps a reply code (RFC 1928 §6) to an error.
///
/// A rule of the proxy (code 2) and an unsupported command (code 7) are permanent refusals. After
/// any other code, a retry may succeed.
fn reply_code_error(reply: u8) -> Error {
    let (kind, reason) = match reply {
        2 => (ErrorKind::ProxyRefused, "its rules do not allow this"),
        3 => (ErrorKind::Proxy, "it cannot reach the network"),
        4 => (ErrorKind::Proxy, "it cannot reach the host"),
        5 => (ErrorKind::Proxy, "the host refused its connection"),
        6 => (ErrorKind::Proxy, "its packets expired on the way"),
        7 => (ErrorKind::ProxyRefused, "it does not support CONNECT"),
        8 => (ErrorKind::Proxy, "it does not support this address type"),
        _ => (ErrorKind::Proxy, "it failed"),
    };
    Error::from_kind(kind).with_detail(reason)
}

fn refused_error(reason: &'static str) -> Error {
    Error::from_kind(ErrorKind::ProxyRefused).with_detail(reason)
}

fn protocol_error() -> Error {
    Error::from_kind(ErrorKind::Proxy).with_detail("its response is not SOCKS5")
}

fn io_error(error: io::Error) -> Error {
    Error::new(ErrorKind::Proxy, error).with_detail("the connection to it was lost")
}

#[cfg(test)]
mod tests {
    use http::header::HeaderValue;
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    const NAME: Host<&str> = Host::Domain("a.example");
    const SUCCESS_REPLY: &[u8] = &[5, 0, 0, 1, 10, 0, 0, 1, 0x1f, 0x90];

    fn credentials() -> ProxyCredentials {
        ProxyCredentials {
            user: b"user".to_vec(),
            password: b"s3cr3t".to_vec(),
            basic_auth_header: HeaderValue::from_static(""),
        }
    }

    /// Runs a handshake with a proxy that sends all of `replies` and then ends its side.
    ///
    /// Returns the outcome, the bytes that the proxy received, and the client's stream.
    async fn run_handshake(
        host: Host<&str>,
        credentials: Option<&ProxyCredentials>,
        replies: &[&[u8]],
    ) -> (Result<(), Error>, Vec<u8>, DuplexStream) {
        let (mut near, mut far) = duplex(4096);
        far.write_all(&replies.concat()).await.unwrap();
        // Ends only the direction from the proxy. The client can still write.
        far.shutdown().await.unwrap();
        let outcome = handshake(&mut near, &host, 443, credentials).await;
        near.shutdown().await.unwrap();
        let mut sent = Vec::new();
        far.read_to_end(&mut sent).await.unwrap();
        (outcome, sent, near)
    }

    #[tokio::test]
    async fn names_and_addresses_are_sent_unresolved() {
        let v6: std::net::Ipv6Addr = "2001:db8::1".parse().unwrap();
        let [mut name, mut v4_bytes, mut v6_bytes] = [const { Vec::new() }; 3];
        name.extend(b"\x05\x01\x00\x03\x09a.example\x01\xbb");
        v4_bytes.extend(b"\x05\x01\x00\x01\x0a\x00\x00\x07\x01\xbb");
        v6_bytes.extend(b"\x05\x01\x00\x04");
        v6_bytes.extend(v6.octets());
        v6_bytes.extend(b"\x01\xbb");
        for (host, request) in [
            (NAME, name),
            (Host::Ipv4([10, 0, 0, 7].into()), v4_bytes),
            (Host::Ipv6(v6), v6_bytes),
        ] {
            let (outcome, sent, _) = run_handshake(host, None, &[b"\x05\x00", SUCCESS_REPLY]).await;
            outcome.unwrap();
            assert_eq!(sent, [b"\x05\x01\x00".to_vec(), request].concat());
        }
    }

    #[tokio::test]
    async fn credentials_are_sent_only_if_requested() {
        let credentials = credentials();
        let replies: [&[u8]; 2] = [b"\x05\x00", SUCCESS_REPLY];
        let (outcome, sent, _) = run_handshake(NAME, Some(&credentials), &replies).await;
        outcome.unwrap();
        assert!(!sent.windows(6).any(|window| window == b"s3cr3t"));
        let replies: [&[u8]; 3] = [b"\x05\x02", b"\x01\x00", SUCCESS_REPLY];
        let (outcome, sent, _) = run_handshake(NAME, Some(&credentials), &replies).await;
        outcome.unwrap();
        assert!(sent.starts_with(b"\x05\x02\x00\x02\x01\x04user\x06s3cr3t\x05\x01\x00\x03"));
    }

    #[tokio::test]
    async fn bytes_after_the_reply_are_not_read() {
        let v6_reply: Vec<u8> = [&[5, 0, 0, 4][..], &[0; 18]].concat();
        for reply in [
            SUCCESS_REPLY,
            b"\x05\x00\x00\x03\x04name\x00\x50",
            &v6_reply,
        ] {
            let replies = [b"\x05\x00", reply, b"after"];
            let (outcome, _, mut near) = run_handshake(NAME, None, &replies).await;
            outcome.unwrap();
            let mut after = String::new();
            near.read_to_string(&mut after).await.unwrap();
            assert_eq!(after, "after");
        }
    }

    #[tokio::test]
    async fn refusals_are_distinguished_from_failures() {
        let user = credentials();
        let (proxy, refused) = (ErrorKind::Proxy, ErrorKind::ProxyRefused);
        type Case<'a> = (Option<&'a ProxyCredentials>, &'a [&'a [u8]], ErrorKind);
        let cases: [Case<'_>; 16] = [
            (None, &[b"\x05\xff"], refused),
            (Some(&user), &[b"\x05\xff"], refused),
            (Some(&user), &[b"\x05\x02", b"\x01\x01"], refused),
            (None, &[b"\x05\x00", b"\x05\x02\x00\x01"], refused),
            (None, &[b"\x05\x00", b"\x05\x08\x00\x01"], proxy),
            (None, &[b"\x05\x00", b"\x05\x01\x00\x01"], proxy),
            (None, &[b"\x05\x00", b"\x05\x03\x00\x01"], proxy),
            (None, &[b"\x05\x00", b"\x05\x04\x00\x01"], proxy),
            (None, &[b"\x05\x00", b"\x05\x05\x00\x01"], proxy),
            (None, &[b"\x05\x00", b"\x05\x00\x00\x09"], proxy),
            (None, &[b"\x05\x00", b"\x05\x00\x00\x01\x0a"], proxy),
            (None, &[b"\x05\x02"], proxy),
            (Some(&user), &[b"\x05\x02", b"\x05\x00"], proxy),
            (None, &[b"\x04\x5a"], proxy),
            (None, &[b"HTTP/1.1 400 Bad Request\r\n\r\n"], proxy),
            (None, &[], proxy),
        ];
        for (credentials, replies, kind) in cases {
            let (outcome, _, _) = run_handshake(NAME, credentials, replies).await;
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), kind, "{replies:?}: {error}");
            assert!(!error.maybe_sent());
            assert!(!format!("{error:?}").contains("s3cr3t"));
        }
        let long = "a".repeat(256);
        let (outcome, _, _) = run_handshake(Host::Domain(&long), None, &[b"\x05\x00"]).await;
        assert_eq!(outcome.unwrap_err().kind(), refused);
    }
}

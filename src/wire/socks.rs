//! A connection through a SOCKS5 proxy (RFC 1928, and RFC 1929 for its credentials).

use std::io;
use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use url::Host;

use crate::error::{Error, ErrorKind};
use crate::proxy::ProxyCredentials;

const SOCKS_VERSION: u8 = 5;
const METHOD_NO_AUTH: u8 = 0;
const METHOD_PASSWORD: u8 = 2;
const COMMAND_CONNECT: u8 = 1;

/// Asks the proxy at the other end of `stream` for a connection. When it has made one, what is written to the stream
/// reaches the host. Not a byte more is read than the proxy's own.
///
/// # Cancel safety
///
/// The stream is of no use if this is not run to its end.
pub(super) async fn handshake<S>(
    stream: &mut S,
    host: &Host<&str>,
    port: u16,
    credentials: Option<&ProxyCredentials>,
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    negotiate_auth(stream, credentials).await?;
    let mut request = vec![SOCKS_VERSION, COMMAND_CONNECT, 0];
    match *host {
        Host::Ipv4(address) => push_address(&mut request, address.into()),
        Host::Ipv6(address) => push_address(&mut request, address.into()),
        Host::Domain(name) => {
            let Ok(length) = u8::try_from(name.len()) else {
                return Err(Error::from_kind(ErrorKind::ProxyRefused)
                    .with_detail("the host name is too long for SOCKS"));
            };
            request.extend([3, length]);
            request.extend_from_slice(name.as_bytes());
        }
    }
    request.extend(port.to_be_bytes());
    stream
        .write_all(&request)
        .await
        .map_err(connection_lost_error)?;
    let [version, reply, _, kind] = read_array(stream).await?;
    check_version(version, SOCKS_VERSION)?;
    if reply != 0 {
        return Err(reply_error(reply));
    }
    // Where the proxy has connected from, which nobody asks for, must be read all the same.
    let length = match kind {
        1 => 4,
        4 => 16,
        3 => usize::from(read_array::<1, S>(stream).await?[0]),
        _ => return Err(protocol_error()),
    };
    let mut bound_address = [0; 255 + 2];
    stream
        .read_exact(&mut bound_address[..length + 2])
        .await
        .map_err(connection_lost_error)?;
    Ok(())
}

/// Agrees on how to authenticate, and does.
async fn negotiate_auth<S>(
    stream: &mut S,
    credentials: Option<&ProxyCredentials>,
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let methods: &[u8] = match credentials {
        Some(_) => &[SOCKS_VERSION, 2, METHOD_NO_AUTH, METHOD_PASSWORD],
        None => &[SOCKS_VERSION, 1, METHOD_NO_AUTH],
    };
    stream
        .write_all(methods)
        .await
        .map_err(connection_lost_error)?;
    let [version, method] = read_array(stream).await?;
    check_version(version, SOCKS_VERSION)?;
    match (method, credentials) {
        (METHOD_NO_AUTH, _) => Ok(()),
        (METHOD_PASSWORD, Some(credentials)) => authenticate(stream, credentials).await,
        (0xff, Some(_)) => Err(refused_error(
            "it takes neither a user and password nor nobody",
        )),
        (0xff, None) => Err(refused_error("it wants credentials")),
        _ => Err(protocol_error()),
    }
}

async fn authenticate<S>(stream: &mut S, credentials: &ProxyCredentials) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = vec![1];
    for text in [&credentials.user, &credentials.password] {
        // At most 255, as was checked when the proxy was made.
        request.push(text.len() as u8);
        request.extend_from_slice(text);
    }
    stream
        .write_all(&request)
        .await
        .map_err(connection_lost_error)?;
    let [version, status] = read_array(stream).await?;
    check_version(version, 1)?;
    match status {
        0 => Ok(()),
        _ => Err(refused_error("it does not take these credentials")),
    }
}

fn push_address(request: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            request.push(1);
            request.extend(address.octets());
        }
        IpAddr::V6(address) => {
            request.push(4);
            request.extend(address.octets());
        }
    }
}

async fn read_array<const N: usize, S: AsyncRead + Unpin>(
    stream: &mut S,
) -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    stream
        .read_exact(&mut bytes)
        .await
        .map_err(connection_lost_error)?;
    Ok(bytes)
}

fn check_version(version: u8, expected: u8) -> Result<(), Error> {
    match version == expected {
        true => Ok(()),
        false => Err(protocol_error()),
    }
}

/// What the codes of RFC 1928, 6 mean. Only what the proxy's rules forbid, and what it cannot do at all, will be no
/// different next time.
fn reply_error(reply: u8) -> Error {
    let (kind, reason) = match reply {
        2 => (ErrorKind::ProxyRefused, "its rules do not allow this"),
        3 => (ErrorKind::Proxy, "the network cannot be reached from it"),
        4 => (ErrorKind::Proxy, "the host cannot be reached from it"),
        5 => (ErrorKind::Proxy, "the host refused its connection"),
        6 => (ErrorKind::Proxy, "its packets expired on the way"),
        7 => (ErrorKind::ProxyRefused, "it cannot connect"),
        8 => (ErrorKind::Proxy, "it does not know this kind of address"),
        _ => (ErrorKind::Proxy, "it failed"),
    };
    Error::from_kind(kind).with_detail(reason)
}

fn refused_error(reason: &'static str) -> Error {
    Error::from_kind(ErrorKind::ProxyRefused).with_detail(reason)
}

fn protocol_error() -> Error {
    Error::from_kind(ErrorKind::Proxy).with_detail("its answer is not SOCKS5")
}

fn connection_lost_error(error: io::Error) -> Error {
    Error::new(ErrorKind::Proxy, error).with_detail("the connection to it was lost")
}

#[cfg(test)]
mod tests {
    use http::header::HeaderValue;
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    const BOUND_ADDRESS_REPLY: &[u8] = &[5, 0, 0, 1, 10, 0, 0, 1, 0x1f, 0x90];

    fn credentials() -> ProxyCredentials {
        ProxyCredentials {
            user: b"user".to_vec(),
            password: b"s3cr3t".to_vec(),
            basic_auth: HeaderValue::from_static(""),
        }
    }

    /// What comes of it when the proxy says all this, and what the proxy was sent.
    async fn run_handshake(
        host: Host<&str>,
        credentials: Option<&ProxyCredentials>,
        answers: &[&[u8]],
    ) -> (Result<(), Error>, Vec<u8>, DuplexStream) {
        let (mut near, mut far) = duplex(4096);
        far.write_all(&answers.concat()).await.unwrap();
        // What is written can still be read after the proxy has stopped speaking.
        far.shutdown().await.unwrap();
        let outcome = handshake(&mut near, &host, 443, credentials).await;
        near.shutdown().await.unwrap();
        let mut sent = Vec::new();
        far.read_to_end(&mut sent).await.unwrap();
        (outcome, sent, near)
    }

    #[tokio::test]
    async fn names_and_addresses_are_sent_as_they_are() {
        let v6: std::net::Ipv6Addr = "2001:db8::1".parse().unwrap();
        let [mut name, mut v4_bytes, mut v6_bytes] = [const { Vec::new() }; 3];
        name.extend(b"\x05\x01\x00\x03\x09a.example\x01\xbb");
        v4_bytes.extend(b"\x05\x01\x00\x01\x0a\x00\x00\x07\x01\xbb");
        v6_bytes.extend(b"\x05\x01\x00\x04");
        v6_bytes.extend(v6.octets());
        v6_bytes.extend(b"\x01\xbb");
        for (host, asked) in [
            (Host::Domain("a.example"), name),
            (Host::Ipv4([10, 0, 0, 7].into()), v4_bytes),
            (Host::Ipv6(v6), v6_bytes),
        ] {
            let (outcome, sent, _) =
                run_handshake(host, None, &[b"\x05\x00", BOUND_ADDRESS_REPLY]).await;
            outcome.unwrap();
            assert_eq!(sent, [b"\x05\x01\x00".to_vec(), asked].concat());
        }
    }

    #[tokio::test]
    async fn credentials_are_sent_only_if_the_proxy_asks_for_them() {
        let credentials = credentials();
        let host = Host::Domain("a.example");
        let (outcome, sent, _) = run_handshake(
            host,
            Some(&credentials),
            &[b"\x05\x00", BOUND_ADDRESS_REPLY],
        )
        .await;
        outcome.unwrap();
        assert!(!sent.windows(6).any(|window| window == b"s3cr3t"));
        let answers: [&[u8]; 3] = [b"\x05\x02", b"\x01\x00", BOUND_ADDRESS_REPLY];
        let (outcome, sent, _) =
            run_handshake(Host::Domain("a.example"), Some(&credentials), &answers).await;
        outcome.unwrap();
        assert!(sent.starts_with(b"\x05\x02\x00\x02\x01\x04user\x06s3cr3t\x05\x01\x00\x03"));
    }

    #[tokio::test]
    async fn nothing_of_what_follows_the_answer_is_read() {
        let bound_v6: Vec<u8> = [&[5, 0, 0, 4][..], &[0; 18]].concat();
        for bound_address in [
            BOUND_ADDRESS_REPLY,
            b"\x05\x00\x00\x03\x04name\x00\x50",
            &bound_v6,
        ] {
            let answers = [b"\x05\x00", bound_address, b"after"];
            let (outcome, _, mut near) =
                run_handshake(Host::Domain("a.example"), None, &answers).await;
            outcome.unwrap();
            let mut after = String::new();
            near.read_to_string(&mut after).await.unwrap();
            assert_eq!(after, "after");
        }
    }

    #[tokio::test]
    async fn what_the_proxy_refuses_is_told_from_what_fails() {
        let credentials = credentials();
        let (proxy, refused) = (ErrorKind::Proxy, ErrorKind::ProxyRefused);
        type Case<'a> = (Option<&'a ProxyCredentials>, &'a [&'a [u8]], ErrorKind);
        let cases: [Case<'_>; 16] = [
            (None, &[b"\x05\xff"], refused),
            (Some(&credentials), &[b"\x05\xff"], refused),
            (Some(&credentials), &[b"\x05\x02", b"\x01\x01"], refused),
            (None, &[b"\x05\x00", b"\x05\x02\x00\x01"], refused),
            (None, &[b"\x05\x00", b"\x05\x08\x00\x01"], proxy),
            (None, &[b"\x05\x00", b"\x05\x01\x00\x01"], proxy),
            (None, &[b"\x05\x00", b"\x05\x03\x00\x01"], proxy),
            (None, &[b"\x05\x00", b"\x05\x04\x00\x01"], proxy),
            (None, &[b"\x05\x00", b"\x05\x05\x00\x01"], proxy),
            (None, &[b"\x05\x00", b"\x05\x00\x00\x09"], proxy),
            (None, &[b"\x05\x00", b"\x05\x00\x00\x01\x0a"], proxy),
            (None, &[b"\x05\x02"], proxy),
            (Some(&credentials), &[b"\x05\x02", b"\x05\x00"], proxy),
            (None, &[b"\x04\x5a"], proxy),
            (None, &[b"HTTP/1.1 400 Bad Request\r\n\r\n"], proxy),
            (None, &[], proxy),
        ];
        for (credentials, answers, kind) in cases {
            let (outcome, _, _) =
                run_handshake(Host::Domain("a.example"), credentials, answers).await;
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), kind, "{answers:?}: {error}");
            assert!(!error.maybe_sent());
            assert!(!format!("{error:?}").contains("s3cr3t"));
        }
        let long = "a".repeat(256);
        let (outcome, _, _) = run_handshake(Host::Domain(&long), None, &[b"\x05\x00"]).await;
        assert_eq!(outcome.unwrap_err().kind(), refused);
    }
}

//! Serves one connection: reads each request and performs the script of its path.

use super::{
    log::{InFlightRequest, OpenConnection, ReceivedRequest, RequestLog},
    script::{AfterBytes, Script, script},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use std::{
    io::{self, ErrorKind},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

/// The maximum size of a head, and of the bytes that a client sends before a response.
const MAX_UNREAD_BYTES: usize = 1 << 20;

/// The size of the last write of a response. The system accepts that much in a single call.
const LAST_WRITE_BYTES: usize = 4096;

/// The delay of a reset that follows bytes. Some systems discard unread bytes on a reset.
const RESET_DELAY: Duration = Duration::from_millis(20);

pub(super) trait Socket: AsyncRead + AsyncWrite + Unpin + Send {
    /// Makes the next close send an RST.
    fn reset_on_close(&self) -> io::Result<()>;
}

impl Socket for TcpStream {
    fn reset_on_close(&self) -> io::Result<()> {
        self.set_zero_linger()
    }
}

pub(super) struct Request {
    pub(super) method: Method,
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) keep_alive: bool,
    received_at: Instant,
}

pub(super) struct Connection<S> {
    socket: S,
    unread: Vec<u8>,
    // Dropped last, so that a connection counts as open until its socket is closed.
    open: OpenConnection,
}

impl<S: Socket> Connection<S> {
    pub(super) fn new(socket: S, open: OpenConnection) -> Self {
        Self {
            socket,
            unread: Vec::new(),
            open,
        }
    }

    /// Serves requests until either side closes.
    pub(super) async fn serve(mut self, log: &Arc<RequestLog>) -> io::Result<()> {
        loop {
            let request = match self.read_request().await {
                Ok(Some(request)) => request,
                Ok(None) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::InvalidData => {
                    let head = b"HTTP/1.1 400 Bad Request\r\n";
                    let headers = b"content-length: 0\r\nconnection: close\r\n\r\n";
                    self.socket
                        .write_all(&[&head[..], headers].concat())
                        .await?;
                    return self.socket.shutdown().await;
                }
                Err(error) => return Err(error),
            };
            let script = script(&request, log);
            let in_flight = log.record_request(ReceivedRequest {
                received_at: request.received_at,
                method: request.method,
                path: request.target,
                headers: request.headers,
                connection: self.open.connection,
                body: request.body,
            });
            if script.is_held {
                tokio::select! {
                    () = log.wait_for_release() => {}
                    closed = self.wait_for_client_close() => return closed,
                }
            }
            if !self.perform(script, in_flight).await? {
                return Ok(());
            }
        }
    }

    /// Performs a script and returns whether the connection stays open.
    ///
    /// A request stops counting as in flight just before the last bytes, or the close, that end its
    /// response, so a client that has read a response never finds it counted. No other task runs on
    /// this thread between the two.
    async fn perform(&mut self, script: Script, in_flight: InFlightRequest) -> io::Result<bool> {
        if !script.wait.is_zero() {
            tokio::select! {
                () = sleep(script.wait) => {}
                closed = self.wait_for_client_close() => return closed.map(|()| false),
            }
        }
        let (first, last) = script
            .bytes
            .split_at(script.bytes.len().saturating_sub(LAST_WRITE_BYTES));
        self.write(first).await?;
        match script.after {
            AfterBytes::KeepAlive => {
                drop(in_flight);
                self.write(last).await?;
                return Ok(true);
            }
            AfterBytes::Close => {
                drop(in_flight);
                self.write(last).await?;
                self.socket.shutdown().await?;
            }
            AfterBytes::Reset => {
                self.write(last).await?;
                if !script.bytes.is_empty() {
                    sleep(RESET_DELAY).await;
                }
                drop(in_flight);
                self.socket.reset_on_close()?;
            }
            AfterBytes::Stall => {
                self.write(last).await?;
                self.wait_for_client_close().await?;
            }
            AfterBytes::Endless => {
                self.write(last).await?;
                loop {
                    self.write(b"10\r\nsixteen bytes...\r\n").await?;
                }
            }
            AfterBytes::Drip(count, interval) => {
                self.write(last).await?;
                return self.drip(count, interval, in_flight).await;
            }
        }
        Ok(false)
    }

    async fn drip(
        &mut self,
        count: usize,
        interval: Duration,
        request: InFlightRequest,
    ) -> io::Result<bool> {
        let mut in_flight = Some(request);
        for remaining in (0..count).rev() {
            tokio::select! {
                () = sleep(interval) => {}
                closed = self.wait_for_client_close() => return closed.map(|()| false),
            }
            if remaining == 0 {
                in_flight = None;
            }
            self.write(b".").await?;
        }
        drop(in_flight);
        Ok(true)
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.socket.write_all(bytes).await?;
        self.socket.flush().await
    }

    /// Reads the next request. Returns `None` if the client closes between two requests.
    async fn read_request(&mut self) -> io::Result<Option<Request>> {
        let Some(end) = self.read_to_head_end().await? else {
            return Ok(None);
        };
        let received_at = Instant::now();
        let head: Vec<u8> = self.unread.drain(..end).collect();
        let mut request = parse_head(&head, received_at).ok_or(ErrorKind::InvalidData)?;
        if request.headers.contains_key(header::EXPECT) {
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        request.body = self.read_body(&request.headers).await?;
        Ok(Some(request))
    }

    /// Reads up to the end of the head and returns its length, the empty line included.
    async fn read_to_head_end(&mut self) -> io::Result<Option<usize>> {
        loop {
            if let Some(at) = position(&self.unread, b"\r\n\r\n") {
                return Ok(Some(at + 4));
            }
            if self.fill().await? == 0 {
                return if self.unread.is_empty() {
                    Ok(None)
                } else {
                    Err(ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    async fn read_body(&mut self, headers: &HeaderMap) -> io::Result<Vec<u8>> {
        if headers.contains_key(header::TRANSFER_ENCODING) {
            return self.read_chunks().await;
        }
        let Some(length) = headers.get(header::CONTENT_LENGTH) else {
            return Ok(Vec::new());
        };
        let length = length.to_str().ok().and_then(|text| text.parse().ok());
        self.read_bytes(length.ok_or(ErrorKind::InvalidData)?).await
    }

    async fn read_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.read_line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| ErrorKind::InvalidData)?;
            if size == 0 {
                while !self.read_line().await?.is_empty() {} // trailers
                return Ok(body);
            }
            body.extend(self.read_bytes(size).await?);
            if self.read_bytes(2).await? != b"\r\n" {
                return Err(ErrorKind::InvalidData.into());
            }
        }
    }

    async fn read_line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = position(&self.unread, b"\r\n") {
                let line = String::from_utf8_lossy(&self.unread[..at]).into_owned();
                self.unread.drain(..at + 2);
                return Ok(line);
            }
            self.fill_or_eof().await?;
        }
    }

    async fn read_bytes(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut taken = std::mem::take(&mut self.unread);
        while taken.len() < count {
            if self.socket.read_buf(&mut taken).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        self.unread = taken.split_off(count);
        Ok(taken)
    }

    async fn fill_or_eof(&mut self) -> io::Result<()> {
        match self.fill().await? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        if self.unread.len() > MAX_UNREAD_BYTES {
            return Err(ErrorKind::InvalidData.into());
        }
        self.socket.read_buf(&mut self.unread).await
    }

    /// Waits until the client closes. Bytes received meanwhile stay in `unread`.
    async fn wait_for_client_close(&mut self) -> io::Result<()> {
        while self.fill().await? != 0 {}
        Ok(())
    }
}

fn position(bytes: &[u8], sought: &[u8]) -> Option<usize> {
    bytes
        .windows(sought.len())
        .position(|window| window == sought)
}

fn parse_head(head: &[u8], received_at: Instant) -> Option<Request> {
    let text = str::from_utf8(head).ok()?;
    let mut lines = text.strip_suffix("\r\n\r\n")?.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let method = words.next()?.parse().ok()?;
    let target = words.next()?.to_owned();
    let version = words.next()?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let name: HeaderName = name.parse().ok()?;
        headers.append(name, HeaderValue::from_str(value.trim()).ok()?);
    }
    let keep_alive = match version {
        "HTTP/1.1" => !has_token(&headers, "close"),
        "HTTP/1.0" => has_token(&headers, "keep-alive"),
        _ => return None,
    };
    Some(Request {
        method,
        target,
        headers,
        body: Vec::new(),
        keep_alive,
        received_at,
    })
}

fn has_token(headers: &HeaderMap, token: &str) -> bool {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case(token))
}

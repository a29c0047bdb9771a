//! One connection: requests in, scripts out.

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

/// No head, and nothing sent ahead of an answer, is longer.
const MAX_UNREAD_BYTES: usize = 1 << 20;

/// An answer's last bytes, which the system takes in one write.
const LAST_WRITE_BYTES: usize = 4096;

/// Before a reset that follows bytes: some systems drop what is received and unread when it comes.
const RESET_DELAY: Duration = Duration::from_millis(20);

pub(super) trait Socket: AsyncRead + AsyncWrite + Unpin + Send {
    /// Makes the close that follows an RST.
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
    at: Instant,
}

pub(super) struct Connection<S> {
    socket: S,
    unread: Vec<u8>,
    // Last: a connection counts as open until its socket is closed.
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

    /// Serves until either side closes.
    pub(super) async fn serve(mut self, log: &Arc<RequestLog>) -> io::Result<()> {
        loop {
            let request = match self.request().await {
                Ok(Some(request)) => request,
                Ok(None) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::InvalidData => {
                    let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                    self.socket.write_all(answer).await?;
                    return self.socket.shutdown().await;
                }
                Err(error) => return Err(error),
            };
            let script = script(&request, log);
            let in_flight = log.received(ReceivedRequest {
                at: request.at,
                method: request.method,
                path: request.target,
                headers: request.headers,
                connection: self.open.connection,
                body: request.body,
            });
            if script.is_held {
                tokio::select! {
                    () = log.wait_for_release() => {}
                    closed = self.client_closed() => return closed,
                }
            }
            if !self.perform(script, in_flight).await? {
                return Ok(());
            }
        }
    }

    /// Whether the connection stays open.
    ///
    /// A request is no longer in flight just before the bytes, or the close, that tell the client: whoever
    /// has read an answer does not find it counted. Nothing else runs on this thread in between.
    async fn perform(&mut self, script: Script, in_flight: InFlightRequest) -> io::Result<bool> {
        if !script.wait.is_zero() {
            tokio::select! {
                () = sleep(script.wait) => {}
                client_closed = self.client_closed() => return client_closed.map(|()| false),
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
                self.client_closed().await?;
            }
            AfterBytes::Endless => {
                self.write(last).await?;
                loop {
                    self.write(b"10\r\nsixteen bytes...\r\n").await?;
                }
            }
            AfterBytes::Drip(count, every) => {
                self.write(last).await?;
                return self.drip(count, every, in_flight).await;
            }
        }
        Ok(false)
    }

    async fn drip(
        &mut self,
        count: usize,
        every: Duration,
        running: InFlightRequest,
    ) -> io::Result<bool> {
        let mut in_flight = Some(running);
        for left in (0..count).rev() {
            tokio::select! {
                () = sleep(every) => {}
                client_closed = self.client_closed() => return client_closed.map(|()| false),
            }
            if left == 0 {
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

    /// The next request; `None` when the client closed between two.
    async fn request(&mut self) -> io::Result<Option<Request>> {
        let Some(end) = self.head_end().await? else {
            return Ok(None);
        };
        let at = Instant::now();
        let head: Vec<u8> = self.unread.drain(..end).collect();
        let mut request = parse_head(&head, at).ok_or(ErrorKind::InvalidData)?;
        if request.headers.contains_key(header::EXPECT) {
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        request.body = self.body(&request.headers).await?;
        Ok(Some(request))
    }

    /// The length of the head, its empty line included.
    async fn head_end(&mut self) -> io::Result<Option<usize>> {
        loop {
            if let Some(at) = position(&self.unread, b"\r\n\r\n") {
                return Ok(Some(at + 4));
            }
            if self.fill().await? == 0 {
                return match self.unread.is_empty() {
                    true => Ok(None),
                    false => Err(ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }

    async fn body(&mut self, headers: &HeaderMap) -> io::Result<Vec<u8>> {
        if headers.contains_key(header::TRANSFER_ENCODING) {
            return self.chunks().await;
        }
        let Some(length) = headers.get(header::CONTENT_LENGTH) else {
            return Ok(Vec::new());
        };
        let length = length.to_str().ok().and_then(|text| text.parse().ok());
        self.take(length.ok_or(ErrorKind::InvalidData)?).await
    }

    async fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| ErrorKind::InvalidData)?;
            if size == 0 {
                while !self.line().await?.is_empty() {} // trailers
                return Ok(body);
            }
            body.extend(self.take(size).await?);
            if self.take(2).await? != b"\r\n" {
                return Err(ErrorKind::InvalidData.into());
            }
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = position(&self.unread, b"\r\n") {
                let line = String::from_utf8_lossy(&self.unread[..at]).into_owned();
                self.unread.drain(..at + 2);
                return Ok(line);
            }
            self.fill_or_eof().await?;
        }
    }

    async fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
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

    /// Waits until the client closes; what it sends meanwhile is kept.
    async fn client_closed(&mut self) -> io::Result<()> {
        while self.fill().await? != 0 {}
        Ok(())
    }
}

fn position(bytes: &[u8], sought: &[u8]) -> Option<usize> {
    bytes
        .windows(sought.len())
        .position(|window| window == sought)
}

fn parse_head(head: &[u8], at: Instant) -> Option<Request> {
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
        at,
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

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    thread,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    runtime::Builder,
    sync::oneshot,
};

/// A proxy on a free port of 127.0.0.1, on its own thread, that records the requests it receives.
///
/// Every tunnel leads to `upstream`, regardless of the requested host. The proxy responds to `http`
/// URLs itself, with the URL as the body.
pub struct ProxyServer {
    address: SocketAddr,
    log: Arc<Mutex<ProxyLog>>,
    _stop: oneshot::Sender<()>,
}

/// The connections and requests that a proxy has received.
#[derive(Clone, Default)]
pub struct ProxyLog {
    pub connections: usize,
    /// The head of each request to an HTTP proxy, or `user:password@host:port` of each request to a
    /// SOCKS proxy.
    pub requests: Vec<String>,
}

#[derive(Clone, Default)]
pub struct ProxyBehavior {
    /// The destination of every tunnel.
    pub upstream: Option<SocketAddr>,
    /// Sent to every request instead of serving it, followed by a close.
    pub fixed_response: Option<String>,
    /// The host for which a `CONNECT` gets a 502.
    pub unreachable_host: Option<&'static str>,
    /// Whether to speak SOCKS5 instead of HTTP.
    pub socks: bool,
    /// Whether SOCKS clients must authenticate.
    pub requires_password: bool,
    /// Whether to send nothing.
    pub silent: bool,
}

impl ProxyServer {
    pub fn start(behavior: ProxyBehavior) -> Self {
        Self::run(behavior, |stream| async { Ok(stream) })
    }

    /// Starts a proxy that is reached over TLS.
    #[cfg(feature = "tls")]
    pub fn start_tls(behavior: ProxyBehavior, leaf: super::ServerCertificate) -> Self {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(super::tls::server_config(leaf)));
        Self::run(behavior, move |stream| {
            let acceptor = acceptor.clone();
            async move { acceptor.accept(stream).await }
        })
    }

    fn run<S, F>(behavior: ProxyBehavior, accept: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = io::Result<S>> + Send + 'static,
    {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a listener");
        let address = listener.local_addr().expect("a bound socket");
        let log = Arc::new(Mutex::new(ProxyLog::default()));
        let (_stop, stopped) = oneshot::channel();
        let recorded = Arc::clone(&log);
        thread::spawn(move || {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                let serving = async {
                    while let Ok((stream, _)) = listener.accept().await {
                        recorded.lock().expect("not poisoned").connections += 1;
                        let (log, behavior) = (Arc::clone(&recorded), behavior.clone());
                        let accepting = accept(stream);
                        tokio::spawn(async move {
                            let stream = accepting.await?;
                            serve(stream, &behavior, &log).await
                        });
                    }
                };
                tokio::select! {
                    () = serving => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            address,
            log,
            _stop,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn log(&self) -> ProxyLog {
        self.log.lock().expect("not poisoned").clone()
    }
}

async fn serve<S>(mut stream: S, behavior: &ProxyBehavior, log: &Mutex<ProxyLog>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if behavior.silent {
        let mut buffer = [0; 1024];
        while stream.read(&mut buffer).await? > 0 {}
        return Ok(());
    }
    if behavior.socks {
        return serve_socks(stream, behavior, log).await;
    }
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let is_connect = head.starts_with("CONNECT ");
        let url = head.split(' ').nth(1).unwrap_or_default().to_owned();
        log.lock().expect("not poisoned").requests.push(head);
        if let Some(response) = &behavior.fixed_response {
            stream.write_all(response.as_bytes()).await?;
            return stream.shutdown().await;
        }
        if is_connect
            && behavior
                .unreachable_host
                .is_some_and(|host| url.starts_with(host))
        {
            let response = b"HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(response).await?;
            return stream.shutdown().await;
        }
        if is_connect {
            stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await?;
            return forward_to_upstream(stream, behavior).await;
        }
        let length = url.len();
        let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{url}");
        stream.write_all(response.as_bytes()).await?;
        stream.flush().await?;
    }
}

async fn serve_socks<S>(
    mut stream: S,
    behavior: &ProxyBehavior,
    log: &Mutex<ProxyLog>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.read_u8().await?;
    read_string(&mut stream).await?;
    let mut user_info = String::new();
    if behavior.requires_password {
        stream.write_all(&[5, 2]).await?;
        stream.read_u8().await?;
        let (user, password) = (
            read_string(&mut stream).await?,
            read_string(&mut stream).await?,
        );
        user_info = format!("{user}:{password}@");
        stream.write_all(&[1, 0]).await?;
    } else {
        stream.write_all(&[5, 0]).await?;
    }
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let host = match head[3] {
        1 => std::net::Ipv4Addr::from(stream.read_u32().await?).to_string(),
        4 => std::net::Ipv6Addr::from(stream.read_u128().await?).to_string(),
        _ => read_string(&mut stream).await?,
    };
    let port = stream.read_u16().await?;
    let target = format!("{user_info}{host}:{port}");
    log.lock().expect("not poisoned").requests.push(target);
    stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    forward_to_upstream(stream, behavior).await
}

async fn read_string(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let length = stream.read_u8().await?;
    let mut text = vec![0; length.into()];
    stream.read_exact(&mut text).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

async fn forward_to_upstream<S>(mut stream: S, behavior: &ProxyBehavior) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let upstream = behavior.upstream.ok_or(io::ErrorKind::NotFound)?;
    let mut upstream = TcpStream::connect(upstream).await?;
    copy_bidirectional(&mut stream, &mut upstream).await?;
    Ok(())
}

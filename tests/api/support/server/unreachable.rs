use std::sync::Mutex;
use tokio::net::TcpSocket;

/// Sockets bound but never listening. They are kept, since a closed port may be given to somebody else,
/// or to the very client that connects to it.
static REFUSING: Mutex<Vec<TcpSocket>> = Mutex::new(Vec::new());

/// `http://127.0.0.1:<port>/` where every connection is refused for as long as the process lives.
pub fn refused_url() -> String {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind("127.0.0.1:0".parse().expect("an address"))
        .expect("a free port");
    let address = socket.local_addr().expect("a bound socket");
    REFUSING.lock().expect("not poisoned").push(socket);
    format!("http://{address}/")
}

/// A port where connecting neither succeeds nor fails: its accept queue is full and nobody accepts.
#[cfg(target_os = "linux")]
pub struct SilentListener {
    address: std::net::SocketAddr,
    _listener: tokio::net::TcpListener,
    _queued: Vec<std::net::TcpStream>,
}

#[cfg(target_os = "linux")]
impl SilentListener {
    /// Blocks the thread for some 400 ms.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn start() -> Self {
        use std::{net::TcpStream, time::Duration};

        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind("127.0.0.1:0".parse().expect("an address"))
            .expect("a free port");
        let listener = socket.listen(1).expect("a listening socket");
        let address = listener.local_addr().expect("a bound socket");
        let mut queued = Vec::new();
        let mut unanswered = 0;
        while unanswered < 2 {
            match TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
                Ok(stream) => queued.push(stream),
                Err(_) => unanswered += 1,
            }
        }
        Self {
            address,
            _listener: listener,
            _queued: queued,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

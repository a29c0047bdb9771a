use std::sync::Mutex;
use tokio::net::TcpSocket;

/// Sockets that are bound and never listen. They stay open, because the system may assign a closed
/// port to another process, or to the client that connects to it.
static REFUSING: Mutex<Vec<TcpSocket>> = Mutex::new(Vec::new());

/// Returns `http://127.0.0.1:<port>/` for a port that refuses connections until the process ends.
pub fn refused_url() -> String {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind("127.0.0.1:0".parse().expect("an address"))
        .expect("a free port");
    let address = socket.local_addr().expect("a bound socket");
    REFUSING.lock().expect("not poisoned").push(socket);
    format!("http://{address}/")
}

/// A port that neither accepts nor refuses connections, because its accept queue is full.
#[cfg(target_os = "linux")]
pub struct SilentListener {
    address: std::net::SocketAddr,
    _listener: tokio::net::TcpListener,
    _queued: Vec<std::net::TcpStream>,
}

#[cfg(target_os = "linux")]
impl SilentListener {
    /// Blocks the thread for about 400 ms.
    ///
    /// # Panics
    ///
    /// If called outside of a tokio runtime.
    pub fn start() -> Self {
        use std::{net::TcpStream, time::Duration};

        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind("127.0.0.1:0".parse().expect("an address"))
            .expect("a free port");
        let listener = socket.listen(1).expect("a listening socket");
        let address = listener.local_addr().expect("a bound socket");
        let mut queued = Vec::new();
        let mut timed_out = 0;
        while timed_out < 2 {
            match TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
                Ok(stream) => queued.push(stream),
                Err(_) => timed_out += 1,
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

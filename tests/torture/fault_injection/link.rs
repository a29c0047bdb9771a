//! A TCP link to a server in this process, which injects faults at chosen bytes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// FIN to the receiver. Later bytes are discarded.
    Cut,
    /// RST to the client, and FIN to the server.
    Reset,
    /// Later bytes are discarded, and the connection stays open.
    Stall,
    /// Up to 64 random bytes are inserted, or all later bytes are replaced by random ones.
    Garbage,
    /// One bit of one byte is inverted.
    BitFlip,
}

impl FaultKind {
    pub(super) const ALL: [Self; 5] = [
        Self::Cut,
        Self::Reset,
        Self::Stall,
        Self::Garbage,
        Self::BitFlip,
    ];

    /// Whether bytes are changed. The other faults only withhold bytes.
    pub(super) fn changes_bytes(self) -> bool {
        matches!(self, Self::Garbage | Self::BitFlip)
    }
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    ToServer,
    ToClient,
}

/// A fault at the byte `offset` of one direction of a connection.
#[derive(Copy, Clone, Debug)]
pub(super) struct Fault {
    pub(super) kind: FaultKind,
    pub(super) direction: Direction,
    pub(super) offset: usize,
}

/// The number of bytes that a connection has carried in each direction.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct CarriedBytes {
    pub(super) to_server: usize,
    pub(super) to_client: usize,
}

/// A listener on 127.0.0.1. Dropping the link closes its listener and its connections.
pub(super) struct Link {
    address: SocketAddr,
    carried_bytes: Arc<Mutex<Vec<CarriedBytes>>>,
    accepting: JoinHandle<()>,
}

impl Link {
    /// Starts a link whose first connection has the first of `faults`, and so on. Connections after
    /// these have no fault. `serve` is called with the server's end of each connection.
    pub(super) async fn start<F>(
        faults: Vec<Fault>,
        seed: u64,
        serve: impl Fn(DuplexStream) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let carried_bytes = Arc::new(Mutex::new(Vec::new()));
        let recorded = Arc::clone(&carried_bytes);
        let accepting = tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            for connection in 0.. {
                let Ok((client, _)) = listener.accept().await else {
                    return;
                };
                let _ = client.set_nodelay(true);
                let (server, server_end) = tokio::io::duplex(64 * 1024);
                recorded
                    .lock()
                    .expect("not poisoned")
                    .push(CarriedBytes::default());
                let recorded = Arc::clone(&recorded);
                let record = move |direction, bytes| {
                    let carried = &mut recorded.lock().expect("not poisoned")[connection];
                    match direction {
                        Direction::ToServer => carried.to_server += bytes,
                        Direction::ToClient => carried.to_client += bytes,
                    }
                };
                let rng = fastrand::Rng::with_seed(seed ^ connection as u64);
                let fault = faults.get(connection).copied();
                tasks.spawn(carry(client, server, fault, rng, record));
                tasks.spawn(serve(server_end));
            }
        });
        Self {
            address,
            carried_bytes,
            accepting,
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The bytes of each connection, in order of acceptance.
    pub(super) fn carried_bytes(&self) -> Vec<CarriedBytes> {
        self.carried_bytes.lock().expect("not poisoned").clone()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// An injected [`FaultKind::Reset`].
struct Reset;

async fn carry(
    mut client: TcpStream,
    server: DuplexStream,
    fault: Option<Fault>,
    rng: fastrand::Rng,
    record: impl Fn(Direction, usize),
) {
    let fault_of = |direction| fault.filter(|fault| fault.direction == direction);
    let (to_server, to_client) = (Direction::ToServer, Direction::ToClient);
    let (client_reader, client_writer) = client.split();
    let (server_reader, server_writer) = tokio::io::split(server);
    let result = tokio::try_join!(
        pump(
            client_reader,
            server_writer,
            fault_of(to_server),
            rng.clone(),
            |bytes| record(to_server, bytes)
        ),
        pump(
            server_reader,
            client_writer,
            fault_of(to_client),
            rng,
            |bytes| record(to_client, bytes)
        ),
    );
    if let Err(Reset) = result {
        let _ = client.set_zero_linger();
    }
}

/// Forwards one direction of a connection, up to its end or its fault.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut fault: Option<Fault>,
    mut rng: fastrand::Rng,
    record: impl Fn(usize),
) -> Result<(), Reset> {
    let mut buffer = [0; 4096];
    let mut offset = 0;
    let mut scrambles = false;
    loop {
        let mut max_read = buffer.len();
        if let Some(fault) = fault {
            match fault.kind {
                _ if offset < fault.offset => max_read = max_read.min(fault.offset - offset),
                FaultKind::Reset => return Err(Reset),
                FaultKind::Cut | FaultKind::Stall => {
                    if fault.kind == FaultKind::Cut {
                        let _ = to.shutdown().await;
                    }
                    while from.read(&mut buffer).await.is_ok_and(|bytes| bytes > 0) {}
                    if fault.kind == FaultKind::Stall {
                        // Until the link is dropped.
                        std::future::pending::<()>().await;
                    }
                    return Ok(());
                }
                FaultKind::Garbage | FaultKind::BitFlip => {}
            }
        }
        let Ok(length @ 1..) = from.read(&mut buffer[..max_read]).await else {
            let _ = to.shutdown().await;
            return Ok(());
        };
        let bytes = &mut buffer[..length];
        let mut inserted = Vec::new();
        if let Some(fault) = fault.take_if(|fault| fault.offset == offset) {
            if fault.kind == FaultKind::BitFlip {
                bytes[0] ^= 1 << rng.u8(..8);
            } else if rng.bool() {
                scrambles = true;
            } else {
                inserted = vec![0; rng.usize(1..=64)];
                rng.fill(&mut inserted);
            }
        }
        if scrambles {
            rng.fill(bytes);
        }
        offset += length;
        record(length);
        if to.write_all(&inserted).await.is_err() || to.write_all(bytes).await.is_err() {
            return Ok(());
        }
    }
}

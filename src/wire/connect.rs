//! From a host's name to a TCP connection.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep};
use url::Host;

use super::pool::{Pool, Token};
use super::resolver::Resolver;
use crate::error::{Error, ErrorKind};

/// How long an address has the field to itself (RFC 8305, 5).
const STAGGER: Duration = Duration::from_millis(250);

/// Whether sockets may connect to an address.
pub(crate) type Admits = fn(IpAddr) -> bool;

/// Makes TCP connections.
pub(super) struct Connector {
    pub(super) pool: Arc<Pool>,
    pub(super) resolver: Resolver,
    /// None: to every address.
    pub(super) admits: Option<Admits>,
    pub(super) nodelay: bool,
}

impl Connector {
    /// Resolves a host and connects to whichever of its addresses answers first.
    pub(super) async fn connect(
        &self,
        host: &Host<&str>,
        port: u16,
    ) -> Result<(TcpStream, Token), Error> {
        let addresses = self.addresses(host, port).await?;
        race(addresses, |address| self.open(address))
            .await
            .map_err(|error| {
                if let Host::Domain(name) = host {
                    self.resolver.forget(name);
                }
                Error::new(ErrorKind::Connect, error)
            })
    }

    /// The addresses of a host that sockets may connect to. What is checked here is what is connected to: nobody looks
    /// the name up again.
    pub(super) async fn addresses(
        &self,
        host: &Host<&str>,
        port: u16,
    ) -> Result<Vec<SocketAddr>, Error> {
        let mut addresses = match *host {
            Host::Ipv4(ip) => vec![SocketAddr::from((ip, port))],
            Host::Ipv6(ip) => vec![SocketAddr::from((ip, port))],
            Host::Domain(name) => self.resolver.look_up(name).await?.to_vec(),
        };
        if let Some(admits) = self.admits {
            addresses.retain(|address| admits(address.ip()));
            if addresses.is_empty() {
                return Err(Error::of(ErrorKind::NotAllowed).because("its address is not public"));
            }
        }
        for address in &mut addresses {
            address.set_port(port);
        }
        Ok(interleave(addresses))
    }

    async fn open(&self, address: SocketAddr) -> io::Result<(TcpStream, Token)> {
        let token = self.pool.claim();
        let socket = match socket(address) {
            Err(error) if out_of_descriptors(&error) && self.pool.relieve() => socket(address)?,
            socket => socket?,
        };
        let stream = socket.connect(address).await?;
        if self.nodelay {
            // Fails only on a connection that is gone already, which the exchange will find out.
            let _ = stream.set_nodelay(true);
        }
        Ok((stream, token))
    }
}

/// Alternates the address families, the one the resolver put first going first (RFC 8305, 4).
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let v6_first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == v6_first);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut mixed = Vec::with_capacity(first.len() + second.len());
    while first.len() + second.len() > 0 {
        mixed.extend(first.next());
        mixed.extend(second.next());
    }
    mixed
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }
}

/// Whether it was for want of a descriptor of ours that there was no connection.
pub(crate) fn lacks_descriptor(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    source
        .and_then(|source| source.downcast_ref())
        .is_some_and(out_of_descriptors)
}

fn out_of_descriptors(error: &io::Error) -> bool {
    // ENFILE and EMFILE, the same numbers on every Unix; WSAEMFILE.
    let codes = if cfg!(unix) { [23, 24] } else { [10024, 10024] };
    error
        .raw_os_error()
        .is_some_and(|code| codes.contains(&code))
}

/// Tries the addresses in turn, the next one when the last had [`STAGGER`] or when one failed.
/// The first success wins and the others are dropped; the last failure is the answer of all.
async fn race<T, F, C>(addresses: Vec<SocketAddr>, connect: C) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
    C: Fn(SocketAddr) -> F,
{
    let mut addresses = addresses.into_iter();
    let mut stagger = pin!(sleep(STAGGER));
    let mut contest = Contest {
        running: Vec::new(),
        failure: None,
    };
    poll_fn(|cx| {
        loop {
            let failed = match contest.poll(cx) {
                Poll::Ready(won) => return Poll::Ready(Ok(won)),
                Poll::Pending => contest.failure.take(),
            };
            let due = failed.is_some()
                || contest.running.is_empty()
                || (addresses.len() > 0 && stagger.as_mut().poll(cx).is_ready());
            if !due {
                return Poll::Pending;
            }
            if let Some(address) = addresses.next() {
                contest.running.push(Box::pin(connect(address)));
                stagger.as_mut().reset(Instant::now() + STAGGER);
            } else if contest.running.is_empty() {
                return Poll::Ready(Err(failed.unwrap_or_else(no_address)));
            } else {
                return Poll::Pending;
            }
        }
    })
    .await
}

fn no_address() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no address to connect to")
}

struct Contest<F> {
    running: Vec<Pin<Box<F>>>,
    failure: Option<io::Error>,
}

impl<T, F: Future<Output = io::Result<T>>> Contest<F> {
    /// Polls every connect under way, drops those that failed and remembers the last failure.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        let mut at = 0;
        while at < self.running.len() {
            match self.running[at].as_mut().poll(cx) {
                Poll::Ready(Ok(won)) => return Poll::Ready(won),
                Poll::Ready(Err(error)) => {
                    self.failure = Some(error);
                    drop(self.running.remove(at));
                }
                Poll::Pending => at += 1,
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::pending;

    use super::*;

    fn v4(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 80))
    }

    fn v6(n: u16) -> SocketAddr {
        SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, n], 80))
    }

    #[test]
    fn address_families_alternate() {
        assert_eq!(
            interleave(vec![v6(1), v6(2), v6(3), v4(1)]),
            [v6(1), v4(1), v6(2), v6(3)]
        );
        assert_eq!(interleave(vec![v4(1), v4(2), v6(1)]), [v4(1), v6(1), v4(2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_holds_the_next_one_up_for_250_ms() {
        let begun = Instant::now();
        let starts = RefCell::new(Vec::new());
        let won = race(vec![v4(1), v4(2), v4(3)], |address| {
            starts.borrow_mut().push(begun.elapsed());
            async move {
                if address != v4(3) {
                    pending::<()>().await;
                }
                Ok(address)
            }
        })
        .await
        .unwrap();
        assert_eq!(won, v4(3));
        let ms: Vec<_> = starts.borrow().iter().map(Duration::as_millis).collect();
        assert_eq!(ms.len(), 3);
        assert!(
            ms[0] < 10 && (250..300).contains(&ms[1]) && (500..600).contains(&ms[2]),
            "{ms:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_address_holds_nobody_up() {
        let begun = Instant::now();
        let won = race((1..=8).map(v4).collect(), |address| async move {
            if address == v4(8) {
                Ok(address)
            } else {
                Err(io::ErrorKind::ConnectionRefused.into())
            }
        })
        .await
        .unwrap();
        assert_eq!((won, begun.elapsed()), (v4(8), Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn eight_silent_addresses_before_a_live_one_take_two_seconds() {
        let begun = Instant::now();
        let won = race((1..=9).map(v4).collect(), |address| async move {
            if address != v4(9) {
                pending::<()>().await;
            }
            Ok(address)
        })
        .await
        .unwrap();
        let took = begun.elapsed();
        assert_eq!(won, v4(9));
        assert!((2000..2500).contains(&took.as_millis()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_first_address_can_still_win() {
        let won = race(vec![v4(1), v4(2)], |address| async move {
            if address == v4(1) {
                sleep(Duration::from_millis(400)).await;
                return Ok(address);
            }
            Err(io::ErrorKind::ConnectionRefused.into())
        })
        .await
        .unwrap();
        assert_eq!(won, v4(1));
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_fail_the_last_failure_is_the_answer() {
        let error = race(vec![v4(1), v4(2)], |address| async move {
            if address == v4(1) {
                sleep(Duration::from_secs(5)).await;
                return Err::<(), _>(io::ErrorKind::TimedOut.into());
            }
            Err(io::ErrorKind::ConnectionRefused.into())
        })
        .await
        .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let error = race(vec![], |_| pending::<io::Result<()>>())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}

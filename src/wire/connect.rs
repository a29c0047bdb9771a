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

use super::pool::{Pool, SocketPermit};
use super::resolver::Resolver;
use crate::error::{Error, ErrorKind};

/// How long an address has the field to itself (RFC 8305, 5).
const CONNECTION_ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Whether sockets may connect to an address.
pub(crate) type AddressFilter = fn(IpAddr) -> bool;

/// Makes TCP connections.
pub(super) struct TcpConnector {
    pub(super) pool: Arc<Pool>,
    pub(super) resolver: Resolver,
    /// None: to every address.
    pub(super) address_filter: Option<AddressFilter>,
    pub(super) tcp_nodelay: bool,
}

impl TcpConnector {
    /// Resolves a host and connects to whichever of its addresses answers first.
    pub(super) async fn connect(
        &self,
        host: &Host<&str>,
        port: u16,
    ) -> Result<(TcpStream, SocketPermit), Error> {
        let addresses = self.resolve(host, port).await?;
        happy_eyeballs(addresses, |address| self.connect_address(address))
            .await
            .map_err(|error| {
                if let Host::Domain(name) = host {
                    self.resolver.invalidate(name);
                }
                Error::new(ErrorKind::Connect, error)
            })
    }

    /// The addresses of a host that sockets may connect to. What is checked here is what is connected to: nobody looks
    /// the name up again.
    pub(super) async fn resolve(
        &self,
        host: &Host<&str>,
        port: u16,
    ) -> Result<Vec<SocketAddr>, Error> {
        let mut addresses = match *host {
            Host::Ipv4(ip) => vec![SocketAddr::from((ip, port))],
            Host::Ipv6(ip) => vec![SocketAddr::from((ip, port))],
            Host::Domain(name) => self.resolver.look_up(name).await?.to_vec(),
        };
        if let Some(address_filter) = self.address_filter {
            addresses.retain(|address| address_filter(address.ip()));
            if addresses.is_empty() {
                return Err(Error::from_kind(ErrorKind::NotAllowed)
                    .with_detail("its address is not public"));
            }
        }
        for address in &mut addresses {
            address.set_port(port);
        }
        Ok(interleave_families(addresses))
    }

    async fn connect_address(&self, address: SocketAddr) -> io::Result<(TcpStream, SocketPermit)> {
        let permit = self.pool.acquire_socket();
        let socket = match new_socket(address) {
            Err(error)
                if is_descriptor_limit_error(&error) && self.pool.evict_for_descriptors() =>
            {
                new_socket(address)?
            }
            socket => socket?,
        };
        let stream = socket.connect(address).await?;
        if self.tcp_nodelay {
            // Fails only on a connection that is gone already, which the exchange will find out.
            let _ = stream.set_nodelay(true);
        }
        Ok((stream, permit))
    }
}

/// Alternates the address families, the one the resolver put first going first (RFC 8305, 4).
fn interleave_families(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let v6_first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == v6_first);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut interleaved = Vec::with_capacity(first.len() + second.len());
    while first.len() + second.len() > 0 {
        interleaved.extend(first.next());
        interleaved.extend(second.next());
    }
    interleaved
}

fn new_socket(address: SocketAddr) -> io::Result<TcpSocket> {
    match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }
}

/// Whether it was for want of a descriptor of ours that there was no connection.
pub(crate) fn is_descriptor_exhaustion(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    source
        .and_then(|source| source.downcast_ref())
        .is_some_and(is_descriptor_limit_error)
}

fn is_descriptor_limit_error(error: &io::Error) -> bool {
    // ENFILE and EMFILE, the same numbers on every Unix; WSAEMFILE.
    let codes = if cfg!(unix) { [23, 24] } else { [10024, 10024] };
    error
        .raw_os_error()
        .is_some_and(|code| codes.contains(&code))
}

/// Tries the addresses in turn, the next one when the last had [`CONNECTION_ATTEMPT_DELAY`] or when one last_error.
/// The first success wins and the others are dropped; the last failure is the answer of all.
async fn happy_eyeballs<T, F, C>(addresses: Vec<SocketAddr>, connect: C) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
    C: Fn(SocketAddr) -> F,
{
    let mut addresses = addresses.into_iter();
    let mut attempt_delay = pin!(sleep(CONNECTION_ATTEMPT_DELAY));
    let mut race = Race {
        connects: Vec::new(),
        last_error: None,
    };
    poll_fn(|cx| {
        loop {
            let last_error = match race.poll(cx) {
                Poll::Ready(won) => return Poll::Ready(Ok(won)),
                Poll::Pending => race.last_error.take(),
            };
            let start_next = last_error.is_some()
                || race.connects.is_empty()
                || (addresses.len() > 0 && attempt_delay.as_mut().poll(cx).is_ready());
            if !start_next {
                return Poll::Pending;
            }
            if let Some(address) = addresses.next() {
                race.connects.push(Box::pin(connect(address)));
                attempt_delay
                    .as_mut()
                    .reset(Instant::now() + CONNECTION_ATTEMPT_DELAY);
            } else if race.connects.is_empty() {
                return Poll::Ready(Err(last_error.unwrap_or_else(no_address_error)));
            } else {
                return Poll::Pending;
            }
        }
    })
    .await
}

fn no_address_error() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no address to connect to")
}

struct Race<F> {
    connects: Vec<Pin<Box<F>>>,
    last_error: Option<io::Error>,
}

impl<T, F: Future<Output = io::Result<T>>> Race<F> {
    /// Polls every connect under way, drops those that failed and remembers the last failure.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        let mut at = 0;
        while at < self.connects.len() {
            match self.connects[at].as_mut().poll(cx) {
                Poll::Ready(Ok(won)) => return Poll::Ready(won),
                Poll::Ready(Err(error)) => {
                    self.last_error = Some(error);
                    drop(self.connects.remove(at));
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
            interleave_families(vec![v6(1), v6(2), v6(3), v4(1)]),
            [v6(1), v4(1), v6(2), v6(3)]
        );
        assert_eq!(
            interleave_families(vec![v4(1), v4(2), v6(1)]),
            [v4(1), v6(1), v4(2)]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_holds_the_next_one_up_for_250_ms() {
        let begun = Instant::now();
        let starts = RefCell::new(Vec::new());
        let won = happy_eyeballs(vec![v4(1), v4(2), v4(3)], |address| {
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
        let won = happy_eyeballs((1..=8).map(v4).collect(), |address| async move {
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
        let won = happy_eyeballs((1..=9).map(v4).collect(), |address| async move {
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
        let won = happy_eyeballs(vec![v4(1), v4(2)], |address| async move {
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
        let error = happy_eyeballs(vec![v4(1), v4(2)], |address| async move {
            if address == v4(1) {
                sleep(Duration::from_secs(5)).await;
                return Err::<(), _>(io::ErrorKind::TimedOut.into());
            }
            Err(io::ErrorKind::ConnectionRefused.into())
        })
        .await
        .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let error = happy_eyeballs(vec![], |_| pending::<io::Result<()>>())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}

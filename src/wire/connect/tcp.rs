//! TCP connections to a host, with Happy Eyeballs (RFC 8305).

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

use super::dns::Resolver;
use crate::descriptors::is_descriptor_limit_error;
use crate::error::{Error, ErrorKind};
use crate::hop_clock::HopClock;
use crate::wire::sockets::{SocketCountGuard, SocketCounter};

/// If an address has neither accepted nor refused the connection after this time, the next address
/// is tried in parallel (RFC 8305 §5).
const CONNECTION_ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Returns whether sockets may connect to an address.
pub(crate) type AddressFilter = fn(IpAddr) -> bool;

/// Resolves host names and opens TCP connections.
pub(in crate::wire) struct TcpConnector {
    pub(in crate::wire) socket_counter: Arc<dyn SocketCounter>,
    pub(in crate::wire) resolver: Resolver,
    /// Decides which addresses sockets may connect to. `None` allows every address.
    pub(in crate::wire) address_filter: Option<AddressFilter>,
    pub(in crate::wire) tcp_nodelay: bool,
}

impl TcpConnector {
    /// Resolves `host` and connects to its addresses. Returns the first connection that succeeds.
    pub(super) async fn connect(
        &self,
        host: &Host<&str>,
        port: u16,
        clock: &HopClock,
    ) -> Result<(TcpStream, SocketCountGuard), Error> {
        let addresses = self.resolve_and_filter(host, port, clock).await?;
        happy_eyeballs(addresses, |address| self.connect_address(address))
            .await
            .map_err(|error| {
                if let Host::Domain(name) = host {
                    self.resolver.remove_from_cache(name);
                }
                Error::new(ErrorKind::Connect, error)
            })
    }

    /// Resolves `host`. Returns the addresses that pass the address filter.
    ///
    /// Callers connect only to these addresses and do not resolve the name again. A DNS record that
    /// changes after the filter has run has no effect.
    pub(super) async fn resolve_and_filter(
        &self,
        host: &Host<&str>,
        port: u16,
        clock: &HopClock,
    ) -> Result<Vec<SocketAddr>, Error> {
        let mut addresses = match *host {
            Host::Ipv4(ip) => vec![SocketAddr::from((ip, port))],
            Host::Ipv6(ip) => vec![SocketAddr::from((ip, port))],
            Host::Domain(name) => self.resolver.look_up(name, clock).await?.to_vec(),
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

    async fn connect_address(
        &self,
        address: SocketAddr,
    ) -> io::Result<(TcpStream, SocketCountGuard)> {
        let socket_count_guard = self.socket_counter.count_socket();
        let socket = match new_socket(address) {
            Err(error)
                if is_descriptor_limit_error(&error)
                    && self.socket_counter.close_some_idle_connections() =>
            {
                new_socket(address)?
            }
            socket => socket?,
        };
        let stream = socket.connect(address).await?;
        if self.tcp_nodelay {
            // Setting the option fails only on a closed connection. The exchange reports the close.
            let _ = stream.set_nodelay(true);
        }
        Ok((stream, socket_count_guard))
    }
}

/// Alternates between IPv4 and IPv6 addresses, starting with the family of the first address (RFC
/// 8305 §4).
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

/// Returns whether connecting failed because the process or the system has no free file descriptor.
pub(crate) fn is_descriptor_exhaustion(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    source
        .and_then(|source| source.downcast_ref())
        .is_some_and(is_descriptor_limit_error)
}

/// Connects to the addresses by Happy Eyeballs (RFC 8305 §5). Returns the first connection that
/// succeeds.
///
/// The next address is tried when an attempt fails, or [`CONNECTION_ATTEMPT_DELAY`] after the
/// previous start. The first success drops all other attempts. If all attempts fail, the last error
/// is returned.
async fn happy_eyeballs<T, F, C>(addresses: Vec<SocketAddr>, connect: C) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
    C: Fn(SocketAddr) -> F,
{
    let mut addresses = addresses.into_iter();
    let mut attempt_delay = pin!(sleep(CONNECTION_ATTEMPT_DELAY));
    let mut race = ConnectRace {
        pending_connects: Vec::new(),
        last_error: None,
    };
    poll_fn(|cx| {
        loop {
            let last_error = match race.poll(cx) {
                Poll::Ready(connected) => return Poll::Ready(Ok(connected)),
                Poll::Pending => race.last_error.take(),
            };
            let start_next = last_error.is_some()
                || race.pending_connects.is_empty()
                || (addresses.len() > 0 && attempt_delay.as_mut().poll(cx).is_ready());
            if !start_next {
                return Poll::Pending;
            }
            if let Some(address) = addresses.next() {
                race.pending_connects.push(Box::pin(connect(address)));
                let next_start = Instant::now() + CONNECTION_ATTEMPT_DELAY;
                attempt_delay.as_mut().reset(next_start);
            } else if race.pending_connects.is_empty() {
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

/// Connection attempts that run in parallel. The first success ends the race.
struct ConnectRace<F> {
    pending_connects: Vec<Pin<Box<F>>>,
    last_error: Option<io::Error>,
}

impl<T, F: Future<Output = io::Result<T>>> ConnectRace<F> {
    /// Polls every connection attempt. Removes failed attempts and stores the last error.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        let mut index = 0;
        while index < self.pending_connects.len() {
            match self.pending_connects[index].as_mut().poll(cx) {
                Poll::Ready(Ok(connected)) => return Poll::Ready(connected),
                Poll::Ready(Err(error)) => {
                    self.last_error = Some(error);
                    drop(self.pending_connects.remove(index));
                }
                Poll::Pending => index += 1,
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
    async fn an_unresponsive_address_delays_the_next_by_250_ms() {
        let begin = Instant::now();
        let starts = RefCell::new(Vec::new());
        let connected = happy_eyeballs(vec![v4(1), v4(2), v4(3)], |address| {
            starts.borrow_mut().push(begin.elapsed());
            async move {
                if address != v4(3) {
                    pending::<()>().await;
                }
                Ok(address)
            }
        })
        .await
        .unwrap();
        assert_eq!(connected, v4(3));
        let ms: Vec<_> = starts.borrow().iter().map(Duration::as_millis).collect();
        assert_eq!(ms.len(), 3);
        assert!(
            ms[0] < 10 && (250..300).contains(&ms[1]) && (500..600).contains(&ms[2]),
            "{ms:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_address_does_not_delay_the_next() {
        let begin = Instant::now();
        let connected = happy_eyeballs((1..=8).map(v4).collect(), |address| async move {
            if address == v4(8) {
                Ok(address)
            } else {
                Err(io::ErrorKind::ConnectionRefused.into())
            }
        })
        .await
        .unwrap();
        assert_eq!((connected, begin.elapsed()), (v4(8), Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn eight_unresponsive_addresses_delay_the_ninth_by_two_seconds() {
        let begin = Instant::now();
        let connected = happy_eyeballs((1..=9).map(v4).collect(), |address| async move {
            if address != v4(9) {
                pending::<()>().await;
            }
            Ok(address)
        })
        .await
        .unwrap();
        let elapsed = begin.elapsed();
        assert_eq!(connected, v4(9));
        assert!((2000..2500).contains(&elapsed.as_millis()), "{elapsed:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_first_address_can_still_win() {
        let connected = happy_eyeballs(vec![v4(1), v4(2)], |address| async move {
            if address == v4(1) {
                sleep(Duration::from_millis(400)).await;
                return Ok(address);
            }
            Err(io::ErrorKind::ConnectionRefused.into())
        })
        .await
        .unwrap();
        assert_eq!(connected, v4(1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_error_is_returned_if_every_address_fails() {
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

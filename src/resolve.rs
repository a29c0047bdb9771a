//! The trait of a custom DNS resolver.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;

/// Looks up host names instead of the resolver of the system, for
/// [`FetcherBuilder::resolver`](crate::FetcherBuilder::resolver).
///
/// A function that takes a host name and returns a future of the addresses implements this trait.
///
/// ```
/// use std::net::{IpAddr, Ipv4Addr};
///
/// # fn main() -> fanout::Result<()> {
/// let resolver = |name: String| async move {
///     match name.as_str() {
///         "db.example" => Ok(vec![IpAddr::from(Ipv4Addr::new(192, 0, 2, 7))]),
///         _ => Err(std::io::ErrorKind::NotFound.into()),
///     }
/// };
/// let fetcher = fanout::Fetcher::builder().resolver(resolver).build()?;
/// # Ok(())
/// # }
/// ```
pub trait Resolve: Send + Sync + 'static {
    /// Returns the IP addresses of the host `name`, in order of preference.
    ///
    /// `name` is ASCII and lower case. The resolver is not called for a URL whose host is an IP
    /// address, nor for names under `localhost`, which are loopback (RFC 6761 §6.3).
    ///
    /// # Errors
    ///
    /// If the future returns [`NotFound`](io::ErrorKind::NotFound) or an empty list, the host does
    /// not exist: the request fails with
    /// [`ErrorKind::HostNotFound`](crate::ErrorKind::HostNotFound) and is not retried. If the
    /// future returns any other error, the lookup failed: the attempt fails with
    /// [`ErrorKind::Dns`](crate::ErrorKind::Dns) and is retried.
    ///
    /// # Cancel safety
    ///
    /// The future runs in its own task, so cancelling a request does not drop it at once. It is
    /// dropped after 30 s, or when the runtime shuts down. If no request waits for the addresses
    /// any more, the future is dropped once it has run for half a second.
    fn resolve(&self, name: &str) -> ResolveFuture;
}

/// The future that [`Resolve::resolve`] returns: the IP addresses of a host.
pub type ResolveFuture = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

impl<F, R> Resolve for F
where
    F: Fn(String) -> R + Send + Sync + 'static,
    R: Future<Output = io::Result<Vec<IpAddr>>> + Send + 'static,
{
    fn resolve(&self, name: &str) -> ResolveFuture {
        Box::pin(self(name.to_owned()))
    }
}

//! Custom name resolution.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;

/// Looks up host names instead of the resolver of the system, for
/// [`FetcherBuilder::resolver`](crate::FetcherBuilder::resolver).
///
/// Every function from a name to a future of its addresses implements this trait.
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
    /// Returns the addresses of `name`, in order of preference.
    ///
    /// `name` is ASCII and lower case. IP addresses are not looked up, nor are names under
    /// `localhost`, which are loopback (RFC 6761 §6.3).
    ///
    /// # Errors
    ///
    /// [`NotFound`](io::ErrorKind::NotFound), or an empty list, means that the host does not exist:
    /// the request fails with [`ErrorKind::HostNotFound`](crate::ErrorKind::HostNotFound) and is
    /// not retried. Any other error means that the lookup failed:
    /// [`ErrorKind::Dns`](crate::ErrorKind::Dns), which is retried.
    ///
    /// # Cancel safety
    ///
    /// The future runs in its own task. It is dropped after 30 s, or when the runtime shuts down. If
    /// no request waits for it any more, it is dropped once it has run for half a second.
    fn resolve(&self, name: &str) -> ResolveFuture;
}

/// The future of [`Resolve::resolve`]: the addresses of a name.
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

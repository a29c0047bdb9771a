//! The user's own way from a name to its addresses.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;

/// Finds the addresses of host names instead of the system: see
/// [`FetcherBuilder::resolver`](crate::FetcherBuilder::resolver).
///
/// Any function from a name to a future of addresses is one.
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
    /// The addresses of `name`, the best first.
    ///
    /// `name` is in ASCII and lower case. It is never an address: those are not looked up.
    ///
    /// # Errors
    ///
    /// [`NotFound`](io::ErrorKind::NotFound), or no address at all, says that there is no such host
    /// ([`ErrorKind::HostNotFound`](crate::ErrorKind::HostNotFound), not retried); any other error that it could not be
    /// found out ([`ErrorKind::Dns`](crate::ErrorKind::Dns), retried).
    ///
    /// # Cancel safety
    ///
    /// The future runs in a task of its own. It is dropped if it takes more than 30 s, or if the runtime ends.
    fn resolve(&self, name: &str) -> ResolveFuture;
}

/// What [`Resolve::resolve`] gives: a boxed future of addresses.
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

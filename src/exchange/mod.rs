//! One request, one response: the head that is sent, the transport, the body that comes back.
//!
//! Nothing here waits for anything but the peer, and nothing here knows of retries: those are the engine's, by the
//! [verdict] on what came back.

mod body;
#[cfg_attr(not(feature = "cookies"), path = "no_cookies.rs")]
mod cookies;
#[cfg_attr(
    not(any(
        feature = "brotli",
        feature = "deflate",
        feature = "gzip",
        feature = "zstd"
    )),
    path = "no_decode.rs"
)]
mod decode;
mod head;
pub(crate) mod redirect;
mod transport;
pub(crate) mod verdict;

use std::sync::Arc;

use bytes::Bytes;
use url::Url;

pub(crate) use cookies::Jar;
pub(crate) use decode::accepted;
pub(crate) use head::Heads;
pub(crate) use transport::{Service, Transport};

use decode::Decoder;

use crate::wire::Progress;
use crate::{Error, Request, Response};

/// What every exchange of a Fetcher shares.
pub(crate) struct Exchange {
    pub(crate) transport: Transport,
    pub(crate) heads: Heads,
    /// The most bytes a body may have, when decoded.
    pub(crate) body_cap: u64,
    /// Whether content codings are undone.
    pub(crate) decode: bool,
}

impl Exchange {
    /// Sends `request` once and reads the whole answer; if it is a redirect that is to be followed, only its head.
    pub(crate) async fn run(
        &self,
        request: &Request,
        follows: bool,
        progress: &Progress,
    ) -> Result<Response, Error> {
        let url: &Arc<Url> = request.check()?;
        let (mut head, mut incoming) = self
            .transport
            .send(&self.heads, request, url, progress)
            .await?;
        self.heads.jar.keep(&head.headers, url);
        let body = if follows && redirect::points_elsewhere(head.status, &head.headers) {
            body::pass_over(&mut incoming, progress).await;
            Bytes::new()
        } else {
            let decoder = match self.decode {
                true => Decoder::of(request.method(), &mut head, &incoming, self.body_cap)?,
                false => None,
            };
            match decoder {
                None => body::collect(&mut incoming, self.body_cap, progress).await?,
                Some(decoder) => {
                    decode::collect(decoder, &mut incoming, self.body_cap, progress).await?
                }
            }
        };
        Ok(Response::new(
            head.status,
            head.version,
            head.headers,
            Arc::clone(url),
            body,
        ))
    }
}

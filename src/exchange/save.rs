//! A body that goes to a file, over as many attempts as it takes.

use std::path::Path;
use std::sync::Arc;

use http::header::HeaderValue;
use http::response::Parts;
use http::{Method, StatusCode};
use tokio::time::Instant;
use url::Url;

use super::partial::Partial;
use super::reader::Decoded;
use super::resume;
use crate::response::Saved;
use crate::wire::Progress;
use crate::{Error, ErrorKind, Request};

pub(crate) struct Saving {
    target: Arc<Path>,
    begun: Option<Begun>,
}

/// What an attempt has left when it broke off.
struct Begun {
    partial: Partial,
    /// Whose body it is.
    url: Arc<Url>,
    /// None if the rest of it cannot be asked for.
    validator: Option<HeaderValue>,
    total: Option<u64>,
}

impl Saving {
    pub(super) fn new(target: Arc<Path>) -> Self {
        Self {
            target,
            begun: None,
        }
    }

    /// The request for what is missing, if something is there that can be gone on with.
    pub(super) fn resumed(&self, request: &Request, url: &Url) -> Option<Box<Request>> {
        let begun = self.begun.as_ref()?;
        let validator = begun.validator.as_ref()?;
        if begun.partial.len() == 0 || *begun.url != *url || *request.method() != Method::GET {
            return None;
        }
        Some(Box::new(resume::ask(
            request,
            begun.partial.len(),
            validator,
        )))
    }

    /// Whether an answer with this status is for the file, or about it.
    pub(super) fn takes(&self, status: StatusCode, resumed: bool) -> bool {
        status.is_success() || (resumed && status == StatusCode::RANGE_NOT_SATISFIABLE)
    }

    /// Reads a body into the file, which gets its name when it is whole.
    ///
    /// # Errors
    ///
    /// If the body breaks off: what is there is kept for the next attempt. If the file cannot be written.
    pub(super) async fn save(
        &mut self,
        request: &Request,
        url: &Arc<Url>,
        head: &Parts,
        resumed: bool,
        mut reader: Decoded<'_>,
    ) -> Result<Box<Saved>, Error> {
        let progress = reader.progress();
        progress.streams();
        if resumed && is_about_a_range(head.status) {
            self.go_on(head)?;
        } else {
            let _held = Held::new(progress);
            let total = reader.exact_length();
            let validator = match reader.was_coded() {
                true => None,
                false => resume::validator(request, head.status, &head.headers),
            };
            self.begin(url, validator, total).await?;
        }
        let failed = failed(&self.target);
        let Some(begun) = &mut self.begun else {
            return Err(Error::of(ErrorKind::Save));
        };
        while let Some(chunk) = reader.chunk().await {
            if begun.partial.push(&chunk?) {
                let _held = Held::new(progress);
                begun.partial.write().await.map_err(&failed)?;
            }
        }
        let _held = Held::new(progress);
        let bytes = begun.partial.len();
        if let Some(whole) = self.begun.take() {
            let target = Arc::clone(&self.target);
            whole.partial.finish(target).await.map_err(&failed)?;
        }
        Ok(Box::new(Saved {
            path: Arc::clone(&self.target),
            bytes,
        }))
    }

    /// Makes sure that what comes is the rest of what is there.
    fn go_on(&mut self, head: &Parts) -> Result<(), Error> {
        let is_the_rest = self.begun.as_ref().is_some_and(|begun| {
            let offset = begun.partial.len();
            let fits =
                |validator| resume::is_the_rest(&head.headers, offset, begun.total, validator);
            head.status == StatusCode::PARTIAL_CONTENT && begun.validator.as_ref().is_some_and(fits)
        });
        if is_the_rest {
            return Ok(());
        }
        // The next attempt starts over.
        self.begun = None;
        Err(Error::of(ErrorKind::Truncated).because("the server did not send the rest of it"))
    }

    async fn begin(
        &mut self,
        url: &Arc<Url>,
        validator: Option<HeaderValue>,
        total: Option<u64>,
    ) -> Result<(), Error> {
        self.begun = None;
        let partial = Partial::create(Arc::clone(&self.target)).await;
        self.begun = Some(Begun {
            partial: partial.map_err(failed(&self.target))?,
            url: Arc::clone(url),
            validator,
            total,
        });
        Ok(())
    }
}

fn is_about_a_range(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE
    )
}

fn failed(target: &Arc<Path>) -> impl Fn(std::io::Error) -> Error + use<> {
    let target = Arc::clone(target);
    move |error| Error::new(ErrorKind::Save, error).because(format!("to {}", target.display()))
}

/// While this is there the peer is not waited for.
pub(super) struct Held<'a>(&'a Progress);

impl<'a> Held<'a> {
    pub(super) fn new(progress: &'a Progress) -> Self {
        progress.hold(Instant::now());
        Self(progress)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.release(Instant::now());
    }
}

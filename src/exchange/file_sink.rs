//! A body that goes to a file, over as many attempts as it takes.

use std::path::Path;
use std::sync::Arc;

use http::header::HeaderValue;
use http::response::Parts;
use http::{Method, StatusCode};
use tokio::time::Instant;
use url::Url;

use super::reader::DecodedBody;
use super::resume;
use super::temp_file::TempFile;
use crate::response::SavedFile;
use crate::wire::AttemptClock;
use crate::{Error, ErrorKind, Request};

pub(crate) struct FileSink {
    target: Arc<Path>,
    download: Option<PartialDownload>,
}

/// What an attempt has left when it broke off.
struct PartialDownload {
    temp_file: TempFile,
    /// Whose body it is.
    url: Arc<Url>,
    /// None if the rest of it cannot be asked for.
    validator: Option<HeaderValue>,
    total: Option<u64>,
}

impl FileSink {
    pub(super) fn new(target: Arc<Path>) -> Self {
        Self {
            target,
            download: None,
        }
    }

    /// The request for what is missing, if something is there that can be gone on with.
    pub(super) fn range_request(&self, request: &Request, url: &Url) -> Option<Box<Request>> {
        let download = self.download.as_ref()?;
        let validator = download.validator.as_ref()?;
        if download.temp_file.len() == 0
            || *download.url != *url
            || *request.method() != Method::GET
        {
            return None;
        }
        Some(Box::new(resume::range_request(
            request,
            download.temp_file.len(),
            validator,
        )))
    }

    /// Whether an answer with this status is for the file, or about it.
    pub(super) fn accepts(&self, status: StatusCode, is_range_request: bool) -> bool {
        status.is_success() || (is_range_request && status == StatusCode::RANGE_NOT_SATISFIABLE)
    }

    /// Reads a body into the file, which gets its name when it is finished.
    ///
    /// # Errors
    ///
    /// If the body breaks off: what is there is kept for the next attempt. If the file cannot be written.
    pub(super) async fn save(
        &mut self,
        request: &Request,
        url: &Arc<Url>,
        head: &Parts,
        is_range_request: bool,
        mut reader: DecodedBody<'_>,
    ) -> Result<Box<SavedFile>, Error> {
        let clock = reader.clock();
        clock.start_streaming();
        if is_range_request && is_range_status(head.status) {
            self.check_range_response(head)?;
        } else {
            let _pause = PauseGuard::new(clock);
            let total = reader.exact_length();
            let validator = match reader.was_encoded() {
                true => None,
                false => resume::resume_validator(request, head.status, &head.headers),
            };
            self.start_download(url, validator, total).await?;
        }
        let save_error = save_error(&self.target);
        let Some(download) = &mut self.download else {
            return Err(Error::from_kind(ErrorKind::Save));
        };
        while let Some(chunk) = reader.chunk().await {
            if download.temp_file.buffer(&chunk?) {
                let _pause = PauseGuard::new(clock);
                download.temp_file.write().await.map_err(&save_error)?;
            }
        }
        let _pause = PauseGuard::new(clock);
        let bytes = download.temp_file.len();
        if let Some(finished) = self.download.take() {
            let target = Arc::clone(&self.target);
            finished
                .temp_file
                .finish(target)
                .await
                .map_err(&save_error)?;
        }
        Ok(Box::new(SavedFile {
            path: Arc::clone(&self.target),
            bytes,
        }))
    }

    /// Makes sure that what comes is the rest of what is there.
    fn check_range_response(&mut self, head: &Parts) -> Result<(), Error> {
        let is_remainder = self.download.as_ref().is_some_and(|download| {
            let offset = download.temp_file.len();
            let fits =
                |validator| resume::is_remainder(&head.headers, offset, download.total, validator);
            head.status == StatusCode::PARTIAL_CONTENT
                && download.validator.as_ref().is_some_and(fits)
        });
        if is_remainder {
            return Ok(());
        }
        // The next attempt starts over.
        self.download = None;
        Err(Error::from_kind(ErrorKind::Truncated)
            .with_detail("the server did not send the rest of it"))
    }

    async fn start_download(
        &mut self,
        url: &Arc<Url>,
        validator: Option<HeaderValue>,
        total: Option<u64>,
    ) -> Result<(), Error> {
        self.download = None;
        let temp_file = TempFile::create(Arc::clone(&self.target)).await;
        self.download = Some(PartialDownload {
            temp_file: temp_file.map_err(save_error(&self.target))?,
            url: Arc::clone(url),
            validator,
            total,
        });
        Ok(())
    }
}

fn is_range_status(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE
    )
}

fn save_error(target: &Arc<Path>) -> impl Fn(std::io::Error) -> Error + use<> {
    let target = Arc::clone(target);
    move |error| Error::new(ErrorKind::Save, error).with_detail(format!("to {}", target.display()))
}

/// While this is there the peer is not waited for.
pub(super) struct PauseGuard<'a>(&'a AttemptClock);

impl<'a> PauseGuard<'a> {
    pub(super) fn new(clock: &'a AttemptClock) -> Self {
        clock.pause(Instant::now());
        Self(clock)
    }
}

impl Drop for PauseGuard<'_> {
    fn drop(&mut self) {
        self.0.resume(Instant::now());
    }
}

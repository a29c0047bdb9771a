//! Saves a body to a file. A download that failed midway can continue in the next attempt.

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
use crate::error::{Error, ErrorKind};
use crate::hop_clock::HopClock;
use crate::request::Request;
use crate::response::SavedFile;

/// Saves a body to the file `target`, and keeps a partial download between attempts.
pub(crate) struct FileSink {
    target: Arc<Path>,
    partial_download: Option<PartialDownload>,
}

/// The data that a failed attempt has saved.
struct PartialDownload {
    temp_file: TempFile,
    /// The URL from which the data was received.
    url: Arc<Url>,
    /// The `ETag` or `Last-Modified` with which the next attempt asks for the rest. `None` if the
    /// download cannot be resumed.
    validator: Option<HeaderValue>,
    /// The length of the complete body; `None` if it is unknown.
    total_length: Option<u64>,
}

impl FileSink {
    pub(super) fn new(target: Arc<Path>) -> Self {
        Self {
            target,
            partial_download: None,
        }
    }

    /// The range request for the rest of a partial download. `None` if there is no partial
    /// download, or if it cannot be resumed.
    pub(super) fn range_request(&self, request: &Request, url: &Url) -> Option<Box<Request>> {
        let partial = self.partial_download.as_ref()?;
        let validator = partial.validator.as_ref()?;
        let offset = partial.temp_file.len();
        if offset == 0 || *partial.url != *url || *request.method() != Method::GET {
            return None;
        }
        Some(Box::new(resume::range_request(request, offset, validator)))
    }

    /// Whether [`Self::save`] handles a response with this status: the body belongs into the file,
    /// or the status refuses the range request.
    pub(super) fn accepts_status(&self, status: StatusCode, is_range_request: bool) -> bool {
        status.is_success() || (is_range_request && status == StatusCode::RANGE_NOT_SATISFIABLE)
    }

    /// Saves a body. The target file is created or replaced only after the body is complete.
    ///
    /// # Errors
    ///
    /// Returns an error if the body fails midway, in which case the next attempt may resume the
    /// download, or if the file cannot be written.
    pub(crate) async fn save(
        &mut self,
        request: &Request,
        url: &Arc<Url>,
        head: &Parts,
        is_range_request: bool,
        mut body: DecodedBody<'_>,
    ) -> Result<Box<SavedFile>, Error> {
        let clock = body.start_streaming();
        if is_range_request && is_range_status(head.status) {
            self.check_range_response(head)?;
        } else {
            let _pause = PauseGuard::new(clock);
            let total_length = body.decoded_length();
            let validator = if body.was_encoded() {
                None
            } else {
                resume::resume_validator(request, head.status, &head.headers)
            };
            self.start_over(url, validator, total_length).await?;
        }
        let to_save_error = to_save_error(&self.target);
        let Some(partial) = &mut self.partial_download else {
            return Err(Error::from_kind(ErrorKind::Save));
        };
        while let Some(chunk) = body.chunk().await {
            if partial.temp_file.append(&chunk?) {
                let _pause = PauseGuard::new(clock);
                partial.temp_file.flush().await.map_err(&to_save_error)?;
            }
        }
        let _pause = PauseGuard::new(clock);
        let bytes = partial.temp_file.len();
        if let Some(complete) = self.partial_download.take() {
            let target = Arc::clone(&self.target);
            let persisted = complete.temp_file.persist(target).await;
            persisted.map_err(&to_save_error)?;
        }
        Ok(Box::new(SavedFile {
            path: Arc::clone(&self.target),
            bytes,
        }))
    }

    /// Verifies that the response to a range request continues the partial download. Otherwise
    /// discards the partial download, so that the next attempt starts over.
    fn check_range_response(&mut self, head: &Parts) -> Result<(), Error> {
        let is_remainder = self.partial_download.as_ref().is_some_and(|partial| {
            let offset = partial.temp_file.len();
            let is_remainder = |validator| {
                resume::is_remainder(&head.headers, offset, partial.total_length, validator)
            };
            head.status == StatusCode::PARTIAL_CONTENT
                && partial.validator.as_ref().is_some_and(is_remainder)
        });
        if is_remainder {
            return Ok(());
        }
        self.partial_download = None;
        let detail = "the server did not send the rest of the body";
        Err(Error::from_kind(ErrorKind::Truncated).with_detail(detail))
    }

    /// Discards a partial download and creates an empty one.
    async fn start_over(
        &mut self,
        url: &Arc<Url>,
        validator: Option<HeaderValue>,
        total_length: Option<u64>,
    ) -> Result<(), Error> {
        self.partial_download = None;
        let temp_file = TempFile::create_beside(Arc::clone(&self.target)).await;
        self.partial_download = Some(PartialDownload {
            temp_file: temp_file.map_err(to_save_error(&self.target))?,
            url: Arc::clone(url),
            validator,
            total_length,
        });
        Ok(())
    }
}

/// Whether a status is specific to range requests: the response has a range of the body, or the
/// server refuses the range. With another status, the body starts from the beginning.
fn is_range_status(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE
    )
}

fn to_save_error(target: &Arc<Path>) -> impl Fn(std::io::Error) -> Error + use<> {
    let target = Arc::clone(target);
    move |error| Error::new(ErrorKind::Save, error).with_detail(format!("to {}", target.display()))
}

/// Pauses the timeouts of the attempt until the guard is dropped, while the attempt waits for the
/// disk and not for the server.
struct PauseGuard<'a>(&'a HopClock);

impl<'a> PauseGuard<'a> {
    fn new(clock: &'a HopClock) -> Self {
        clock.pause(Instant::now());
        Self(clock)
    }
}

impl Drop for PauseGuard<'_> {
    fn drop(&mut self) {
        self.0.resume(Instant::now());
    }
}

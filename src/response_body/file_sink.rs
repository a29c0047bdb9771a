//! Saves a body to a file. A download that failed midway can continue in the next attempt.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use http::header::HeaderValue;
use http::response::Parts;
use http::{Method, StatusCode};
use tokio::time::Instant;
use url::Url;

use super::collect::drain_body;
use super::reader::DecodedBody;
use super::resume::{self, DownloadedPart, RangeResponse};
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

    /// Saves a body. The target file is created or replaced only after the body is complete. After
    /// a resumed download, `head` becomes the head of the whole representation.
    ///
    /// # Errors
    ///
    /// Returns an error if the body fails midway or its length differs from the announced length,
    /// in which case the next attempt may resume the download, or if the file cannot be written.
    pub(crate) async fn save(
        &mut self,
        request: &Request,
        url: &Arc<Url>,
        head: &mut Parts,
        is_range_request: bool,
        mut body: DecodedBody<'_>,
    ) -> Result<Box<SavedFile>, Error> {
        let clock = body.start_streaming();
        let is_resumed = is_range_request && is_range_status(head.status);
        if !is_resumed {
            let pause = PauseGuard::new(clock);
            let (status, headers) = (head.status, &head.headers);
            let body_length = body.decoded_length();
            let total_length = resume::announced_length(request, status, headers, body_length)?;
            let validator = if body.was_encoded() {
                None
            } else {
                resume::resume_validator(request, status, headers)
            };
            self.start_over(url, validator, total_length).await?;
            drop(pause);
            self.append(body, clock).await?;
        } else if self.is_nothing_left(head, body.decoded_length())? {
            drain_body(&mut body.into_encoded()).await;
        } else {
            self.append(body, clock).await?;
        }
        let _pause = PauseGuard::new(clock);
        let saved_file = self.persist().await?;
        if is_resumed {
            resume::combine_head(head, saved_file.bytes);
        }
        Ok(saved_file)
    }

    /// Interprets the response to a range request: whether the partial download is complete, or the
    /// body continues it. Otherwise discards the partial download, so that the next attempt starts
    /// over.
    fn is_nothing_left(&mut self, head: &Parts, body_length: Option<u64>) -> Result<bool, Error> {
        let partial = self.partial_download.as_mut();
        if let Some(partial) = partial
            && let Some(validator) = &partial.validator
        {
            let part = DownloadedPart {
                length: partial.temp_file.len(),
                total_length: partial.total_length,
                validator,
            };
            match part.interpret(head.status, &head.headers, body_length) {
                RangeResponse::Remainder { total_length } => {
                    partial.total_length = Some(total_length);
                    return Ok(false);
                }
                RangeResponse::NothingLeft => return Ok(true),
                RangeResponse::Mismatch => {}
            }
        }
        self.partial_download = None;
        Err(truncated("the server did not send the rest of the body"))
    }

    /// Appends the body to the partial download.
    async fn append(&mut self, mut body: DecodedBody<'_>, clock: &HopClock) -> Result<(), Error> {
        let Some(partial) = &mut self.partial_download else {
            return Err(Error::from_kind(ErrorKind::Save));
        };
        let max_length = partial.total_length.unwrap_or(u64::MAX);
        while let Some(chunk) = body.chunk().await {
            let chunk = chunk?;
            if partial.temp_file.len() + chunk.len() as u64 > max_length {
                // It is unknown which bytes are wrong.
                self.partial_download = None;
                return Err(truncated("the body is longer than its Content-Range"));
            }
            if partial.temp_file.append(&chunk) {
                let _pause = PauseGuard::new(clock);
                let flushed = partial.temp_file.flush().await;
                flushed.map_err(to_save_error(&self.target))?;
            }
        }
        match (partial.temp_file.len(), partial.total_length) {
            (length, Some(total)) if length < total => {
                Err(truncated(format!("{length} of {total} bytes")))
            }
            _ => Ok(()),
        }
    }

    /// Renames the complete file to the target.
    async fn persist(&mut self) -> Result<Box<SavedFile>, Error> {
        let Some(complete) = self.partial_download.take() else {
            return Err(Error::from_kind(ErrorKind::Save));
        };
        let bytes = complete.temp_file.len();
        let persisted = complete.temp_file.persist(Arc::clone(&self.target)).await;
        persisted.map_err(to_save_error(&self.target))?;
        Ok(Box::new(SavedFile {
            path: Arc::clone(&self.target),
            bytes,
        }))
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

fn truncated(detail: impl Into<Cow<'static, str>>) -> Error {
    Error::from_kind(ErrorKind::Truncated).with_detail(detail)
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

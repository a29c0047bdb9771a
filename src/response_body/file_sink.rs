//! Saves a body to a file. A download that failed midway can continue in the next attempt, and in
//! the next run of the program.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use http::header::{CONTENT_ENCODING, RANGE};
use http::response::Parts;
use http::{Method, StatusCode};
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::collect::drain_body;
use super::part_file::{PartClaim, PartFile, PartOwnership, Representation, UrlHash};
use super::reader::DecodedBody;
use super::resume::{self, DownloadedPart, RangeResponse};
use super::retry_renewal::RetryRenewal;
use crate::error::{Error, ErrorKind};
use crate::hop_clock::{HopClock, PauseGuard, QueueWaitGuard};
use crate::request::Request;
use crate::response::SavedFile;

/// Saves a body to the file `target`, and keeps a partial download between attempts.
pub(crate) struct FileSink {
    target_path: Arc<Path>,
    /// Whether the sink has searched for the part file of an earlier download.
    has_searched_for_part: bool,
    /// The right to use the part file with the predictable name. `None` if another download uses
    /// this file.
    part_claim: Option<PartClaim>,
    partial_download: Option<PartialDownload>,
    retry_renewal: RetryRenewal,
}

/// The data that a failed attempt, or an earlier run of the program, has saved.
struct PartialDownload {
    part_file: PartFile,
    representation: Representation,
}

impl FileSink {
    pub(super) fn new(target: Arc<Path>) -> Self {
        Self {
            target_path: target,
            has_searched_for_part: false,
            part_claim: None,
            partial_download: None,
            retry_renewal: RetryRenewal::default(),
        }
    }

    /// Returns the range request for the rest of a partial download. Returns `None` if there is no
    /// partial download or if it cannot be resumed. The first call searches for a part file.
    ///
    /// # Errors
    ///
    /// Returns an error if the directory of the target does not exist.
    pub(crate) async fn prepare_range_request(
        &mut self,
        request: &Request,
        url: &Url,
        clock: &HopClock,
    ) -> Result<Option<Box<Request>>, Error> {
        if !self.has_searched_for_part {
            let _queue_wait = QueueWaitGuard::pause_clock(clock);
            let searched = self.claim_and_find_earlier_part().await;
            searched.map_err(save_error_mapper(&self.target_path))?;
        }
        let is_resumable =
            *request.method() == Method::GET && !request.headers().contains_key(RANGE);
        Ok(self
            .partial_download
            .as_ref()
            .filter(|partial| is_resumable && partial.representation.url_hash == UrlHash::of(url))
            .and_then(|partial| {
                let validator = partial.representation.validator.as_ref()?;
                let offset = partial.part_file.received_length();
                (offset > 0).then(|| resume::build_range_request(request, offset, validator))
            })
            .map(Box::new))
    }

    async fn claim_and_find_earlier_part(&mut self) -> std::io::Result<()> {
        // An earlier call that was cancelled may have acquired the claim already.
        if self.part_claim.is_none() {
            self.part_claim = PartClaim::acquire(&self.target_path);
        }
        if let Some(claim) = &self.part_claim {
            let found = PartFile::find_earlier_part(Arc::clone(&self.target_path), claim).await?;
            self.partial_download = found.map(|(file, representation)| {
                self.retry_renewal
                    .record_file_length(file.received_length());
                PartialDownload {
                    part_file: file,
                    representation,
                }
            });
            self.retry_renewal.renew_if_file_grew(0);
        }
        self.has_searched_for_part = true;
        Ok(())
    }

    /// Whether [`Self::save_body`] handles a response with this status: a 2xx response, or a 416
    /// response to a range request.
    pub(super) fn accepts_status(&self, status: StatusCode, is_range_request: bool) -> bool {
        status.is_success() || (is_range_request && status == StatusCode::RANGE_NOT_SATISFIABLE)
    }

    /// Saves a body. The target file is created or replaced only after the body is complete. If the
    /// download was resumed, `head` becomes the head of the whole representation.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be written, if the body fails midway, or if its length
    /// differs from the announced length. In the last two cases, the next attempt may resume the
    /// download.
    pub(crate) async fn save_body(
        &mut self,
        request: &Request,
        url: &Url,
        head: &mut Parts,
        is_range_request: bool,
        mut body: DecodedBody<'_>,
    ) -> Result<Box<SavedFile>, Error> {
        let clock = body.record_streaming_start();
        let body_length = body.decoded_length();
        let meter = body.body_meter();
        let is_resumed = is_range_request && is_range_status(head.status);
        if is_resumed {
            let pause = PauseGuard::new(clock);
            let is_complete = self
                .check_range_response_against_part(head, body_length)
                .await?;
            drop(pause);
            if is_complete {
                drain_body(&mut body.into_encoded_reader()).await;
            } else {
                self.append_body(body, clock).await?;
            }
        } else {
            let (status, headers) = (head.status, &head.headers);
            let total_length =
                resume::announced_body_length(request, status, headers, body_length)?;
            let validator = if body.was_encoded() {
                None
            } else {
                resume::resume_validator(request, status, headers)
            };
            let representation = Representation {
                url_hash: UrlHash::of(url),
                validator,
                content_coding: headers.get(CONTENT_ENCODING).cloned(),
                total_length,
            };
            {
                let _pause = PauseGuard::new(clock);
                self.discard_part_and_start_over(representation).await;
            }
            self.append_body(body, clock).await?;
        }
        let _pause = PauseGuard::new(clock);
        let content_coding = match &self.partial_download {
            Some(complete) => complete.representation.content_coding.clone(),
            None => None,
        };
        let saved_file = self.rename_to_target().await?;
        meter.record_body_end(saved_file.size_bytes);
        if is_resumed {
            resume::rewrite_as_complete_head(head, saved_file.size_bytes, content_coding);
        }
        Ok(saved_file)
    }

    /// Compares the response to a range request with the part file. Returns true if the part file
    /// is already complete, and false if the body continues the part file. If the response does not
    /// fit, discards the part file and returns an error, so that the next attempt starts over.
    async fn check_range_response_against_part(
        &mut self,
        head: &Parts,
        body_length: Option<u64>,
    ) -> Result<bool, Error> {
        let response = self.partial_download.as_ref().and_then(|partial| {
            let representation = &partial.representation;
            let part = DownloadedPart {
                downloaded_length: partial.part_file.received_length(),
                total_length: representation.total_length,
                validator: representation.validator.as_ref()?,
                content_coding: representation.content_coding.as_ref(),
            };
            Some(part.interpret_range_response(head.status, &head.headers, body_length))
        });
        let response = response.filter(|response| *response != RangeResponse::Mismatch);
        let (Some(partial), Some(response)) = (&mut self.partial_download, response) else {
            self.discard_part().await;
            return Err(truncated_error(
                "the server did not send the rest of the body",
            ));
        };
        if let RangeResponse::RestOfBody { total_length } = response {
            partial.representation.total_length = Some(total_length);
        }
        let taken_over = partial
            .part_file
            .take_over_found_part(&partial.representation)
            .await;
        let ownership = taken_over.map_err(save_error_mapper(&self.target_path))?;
        self.forget_part_if_lost(ownership)?;
        Ok(response == RangeResponse::NothingLeft)
    }

    /// Appends the body to the part file.
    async fn append_body(
        &mut self,
        mut body: DecodedBody<'_>,
        clock: &HopClock,
    ) -> Result<(), Error> {
        let Some(partial) = &self.partial_download else {
            return Err(Error::from_kind(ErrorKind::Save));
        };
        let total_length = partial.representation.total_length;
        let meter = body.body_meter();
        meter.record_body_start(partial.part_file.received_length(), total_length);
        while let Some(chunk) = self.next_chunk_or_due_write(&mut body).await {
            let chunk = chunk?;
            let Some(partial) = &mut self.partial_download else {
                break;
            };
            let length = partial.part_file.received_length() + chunk.len() as u64;
            if total_length.is_some_and(|total| length > total) {
                // It is unknown which bytes of the part file are wrong, so all of them are
                // discarded.
                self.discard_part().await;
                return Err(truncated_error("the body is longer than its Content-Range"));
            }
            let now = Instant::now();
            partial.part_file.append_to_memory(&chunk, now);
            meter.record_received_bytes(partial.part_file.received_length());
            drop(chunk);
            if partial
                .part_file
                .write_due_at()
                .is_some_and(|due| due <= now)
            {
                let _pause = PauseGuard::new(clock);
                self.write_received_data().await?;
            }
        }
        let length = self.downloaded_length();
        match total_length {
            Some(total) if length < total => {
                Err(truncated_error(format!("{length} of {total} bytes")))
            }
            _ => Ok(()),
        }
    }

    /// Reads the next chunk. If no chunk arrives before a write is due, writes the received data
    /// first.
    async fn next_chunk_or_due_write(
        &mut self,
        body: &mut DecodedBody<'_>,
    ) -> Option<Result<bytes::Bytes, Error>> {
        let partial = self.partial_download.as_ref()?;
        if let Some(due) = partial.part_file.write_due_at() {
            if let Ok(chunk) = timeout_at(due, body.next_chunk()).await {
                return chunk;
            }
            // The clock is not paused during this write, because the server is still silent.
            if let Err(error) = self.write_received_data().await {
                return Some(Err(error));
            }
        }
        body.next_chunk().await
    }

    async fn write_received_data(&mut self) -> Result<(), Error> {
        let Some(partial) = &mut self.partial_download else {
            return Ok(());
        };
        let written = partial
            .part_file
            .write_unwritten_data(&partial.representation, self.part_claim.as_ref());
        let ownership = written
            .await
            .map_err(save_error_mapper(&self.target_path))?;
        self.forget_part_if_lost(ownership)
    }

    /// Renames the complete file to the target.
    async fn rename_to_target(&mut self) -> Result<Box<SavedFile>, Error> {
        let Some(complete) = &mut self.partial_download else {
            return Err(Error::from_kind(ErrorKind::Save));
        };
        let bytes = complete.part_file.received_length();
        let persisted = complete.part_file.write_and_rename_to_target().await;
        let ownership = persisted.map_err(save_error_mapper(&self.target_path))?;
        self.forget_part_if_lost(ownership)?;
        self.partial_download = None;
        self.part_claim = None;
        Ok(Box::new(SavedFile {
            path: Arc::clone(&self.target_path),
            size_bytes: bytes,
        }))
    }

    /// Discards a partial download and starts an empty one.
    async fn discard_part_and_start_over(&mut self, representation: Representation) {
        self.discard_part().await;
        self.partial_download = Some(PartialDownload {
            part_file: PartFile::new(Arc::clone(&self.target_path)),
            representation,
        });
    }

    async fn discard_part(&mut self) {
        if let Some(partial) = self.partial_download.take() {
            partial.part_file.delete_file().await;
        }
    }

    /// Discards a partial download if the status says that the resource no longer exists.
    pub(crate) async fn discard_part_on_404_or_410(&mut self, status: StatusCode) {
        if matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) {
            self.discard_part().await;
        }
    }

    /// If the part file is lost, forgets it and returns an error. The next attempt starts over with
    /// another part file.
    fn forget_part_if_lost(&mut self, ownership: PartOwnership) -> Result<(), Error> {
        if ownership == PartOwnership::StillOwned {
            return Ok(());
        }
        self.partial_download = None;
        self.part_claim = None;
        Err(truncated_error(
            "another download has taken over the part file",
        ))
    }

    /// Ends an attempt that has failed. Writes the received data to the part file, for the next
    /// attempt or the next run of the program. Discards the data if the download cannot be resumed.
    pub(crate) async fn keep_resumable_download(&mut self) {
        let Some(partial) = &self.partial_download else {
            return;
        };
        if partial.representation.validator.is_none() {
            self.partial_download = None;
        } else if partial.part_file.write_due_at().is_some() {
            // An error is ignored, because the next attempt writes the same data again.
            let _ = self.write_received_data().await;
        }
        self.retry_renewal
            .record_file_length(self.downloaded_length());
    }

    fn downloaded_length(&self) -> u64 {
        let partial = self.partial_download.as_ref();
        partial.map_or(0, |partial| partial.part_file.received_length())
    }

    pub(super) fn retry_renewal(&self) -> &RetryRenewal {
        &self.retry_renewal
    }

    pub(super) fn retry_renewal_mut(&mut self) -> &mut RetryRenewal {
        &mut self.retry_renewal
    }
}

fn truncated_error(detail: impl Into<Cow<'static, str>>) -> Error {
    Error::from_kind(ErrorKind::Truncated).with_detail(detail)
}

/// Whether a status is specific to range requests: 206 if the response has the range, 416 if the
/// server refuses the range. With any other status, the body starts at its first byte.
fn is_range_status(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE
    )
}

fn save_error_mapper(target: &Arc<Path>) -> impl Fn(std::io::Error) -> Error + use<> {
    let target = Arc::clone(target);
    move |error| Error::new(ErrorKind::Save, error).with_detail(format!("to {}", target.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hop_clock::tests::assert_dropped_wait_is_queue_wait;

    #[test]
    fn dropped_search_for_a_part_file_is_queued_time() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("file");
        assert_dropped_wait_is_queue_wait(async |clock| {
            let request = Request::get("http://a.example/file").build();
            let url = Url::parse("http://a.example/file").unwrap();
            let mut sink = FileSink::new(target.into());
            let _searched = sink.prepare_range_request(&request, &url, clock).await;
        });
    }
}

//! A request that is ready to be sent.

use http::header::{HeaderValue, TRANSFER_ENCODING};
use url::Url;

use super::request_headers::{DefaultHeaders, RequestTargetForm};
use super::spare_header_map;
use crate::body::{Body, BodyErrorSlot};
use crate::error::Error;
use crate::hop_clock::HopClock;
use crate::request::Request;
use crate::wire::UnsentRequest;

/// A request with everything that is needed to send it, once or several times.
pub(super) struct OutgoingRequest<'a> {
    pub(super) default_headers: &'a DefaultHeaders,
    pub(super) request: &'a Request,
    pub(super) url: &'a Url,
    /// Receives the error of a request body that could not be read.
    pub(super) body_error_slot: Option<&'a BodyErrorSlot>,
    pub(super) hop_clock: &'a HopClock,
}

impl OutgoingRequest<'_> {
    /// Builds the HTTP request with a newly opened body.
    pub(super) async fn build(
        &self,
        target_form: RequestTargetForm,
    ) -> Result<http::Request<Body>, Error> {
        let body = self
            .request
            .body()
            .open_for_attempt(self.body_error_slot, self.hop_clock)
            .await?;
        let mut request = http_request_with_spare_header_map(body);
        self.default_headers
            .set_request_head(self.request, self.url, target_form, &mut request)?;
        Ok(request)
    }

    /// Builds the HTTP request with a newly opened body, and stores it in `slot`. The wire takes
    /// the request out of `slot`.
    pub(super) async fn build_http_request_into_slot(
        &self,
        target_form: RequestTargetForm,
        slot: &mut UnsentRequest,
    ) -> Result<(), Error> {
        let body = self
            .request
            .body()
            .open_for_attempt(self.body_error_slot, self.hop_clock)
            .await?;
        let has_length = body.known_length().is_some();
        let unsent = slot.insert(http_request_with_spare_header_map(body));
        self.default_headers
            .set_request_head(self.request, self.url, target_form, unsent)?;
        if !has_length {
            // Without `Transfer-Encoding`, hyper sends no body of unknown length with a GET.
            let chunked = HeaderValue::from_static("chunked");
            unsent.headers_mut().insert(TRANSFER_ENCODING, chunked);
        }
        Ok(())
    }
}

fn http_request_with_spare_header_map(body: Body) -> http::Request<Body> {
    let mut request = http::Request::new(body);
    *request.headers_mut() = spare_header_map::take_spare_or_new_map();
    request
}

//! JSON bodies of requests and responses.

use std::sync::Arc;

use http::header::HeaderValue;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};
use crate::request::RequestBuilder;
use crate::response::Response;

impl RequestBuilder {
    /// Sets the body to `value` serialized as JSON. Sets `Content-Type` to `application/json`
    /// unless the request already has a `Content-Type`.
    ///
    /// A value that cannot be serialized makes the request invalid: fetching it returns
    /// [`ErrorKind::InvalidRequest`].
    ///
    /// ```
    /// use fanout::Request;
    ///
    /// let request = Request::post("https://api.example/items").json(&[1, 2, 3]).build();
    /// assert_eq!(request.body().as_bytes().unwrap(), "[1,2,3]");
    /// assert_eq!(request.headers()["content-type"], "application/json");
    /// ```
    pub fn json(self, value: &(impl Serialize + ?Sized)) -> Self {
        match serde_json::to_vec(value) {
            Ok(bytes) => self
                .with_default_content_type(HeaderValue::from_static("application/json"))
                .body(bytes),
            Err(error) => {
                self.with_invalid_reason(format!("the body cannot be made JSON: {error}"))
            }
        }
    }
}

impl Response {
    /// Deserializes the body as JSON. The status is not checked.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Json`] if the body is not valid JSON or does not match `T`. The source
    /// of the error names the position in the body.
    ///
    /// ```
    /// use fanout::Response;
    ///
    /// let response = Response::from(http::Response::new("[1, 2, 3]".into()));
    /// assert_eq!(response.json::<Vec<u32>>()?, [1, 2, 3]);
    /// # Ok::<(), fanout::Error>(())
    /// ```
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(self.body_without_bom()).map_err(|source| {
            let mut error = Error::new(ErrorKind::Json, source);
            error.set_url(Arc::clone(self.shared_url()));
            error.set_attempts(self.attempt_list().clone());
            error
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::error::Error as _;

    use super::*;
    use crate::request::Request;

    #[test]
    fn unserializable_value_makes_the_request_invalid() {
        let keyed_by_lists = HashMap::from([(vec![1], 2)]);
        let request = Request::post("http://a.example/").json(&keyed_by_lists);
        let error = request.build().url_if_sendable().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.to_string().contains("cannot be made JSON"), "{error}");
    }

    #[test]
    fn json_keeps_an_existing_content_type() {
        let request = Request::post("http://a.example/")
            .header("content-type", "application/vnd.api+json")
            .json("x")
            .build();
        assert_eq!(
            request.headers()["content-type"],
            "application/vnd.api+json"
        );
    }

    #[test]
    fn invalid_json_is_a_json_error_that_names_the_line() {
        let response = Response::from(http::Response::new("{".into()));
        let error = response.json::<Vec<u32>>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Json);
        assert!(error.source().unwrap().to_string().contains("line 1"));
    }

    #[test]
    fn byte_order_mark_before_json_is_skipped() {
        let response = Response::from(http::Response::new("\u{feff}7".into()));
        assert_eq!(response.json::<u8>().unwrap(), 7);
    }
}

//! JSON in requests and responses.

use std::sync::Arc;

use http::header::HeaderValue;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, ErrorKind, Request, Response, Result};

impl Request {
    /// Sets the body to `value` as JSON, and `Content-Type` to `application/json` unless it is set.
    ///
    /// A value that cannot be serialised makes the request invalid: see
    /// [`ErrorKind::InvalidRequest`].
    ///
    /// ```
    /// use fanout::Request;
    ///
    /// let request = Request::post("https://api.example/items").json(&[1, 2, 3]);
    /// assert_eq!(request.content().as_bytes().unwrap(), "[1,2,3]");
    /// assert_eq!(request.header_map()["content-type"], "application/json");
    /// ```
    pub fn json(self, value: &(impl Serialize + ?Sized)) -> Self {
        match serde_json::to_vec(value) {
            Ok(bytes) => self
                .content_type(HeaderValue::from_static("application/json"))
                .body(bytes),
            Err(error) => self.with_error(format!("the body cannot be made JSON: {error}")),
        }
    }
}

impl Response {
    /// Reads the body as JSON.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Json`], with the place in the body as its source, if the body is not the JSON
    /// that `T` expects. The status is not looked at.
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

    #[test]
    fn a_value_that_cannot_be_json_makes_the_request_invalid() {
        let keyed_by_lists = HashMap::from([(vec![1], 2)]);
        let request = Request::post("http://a.example/").json(&keyed_by_lists);
        let error = request.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.to_string().contains("cannot be made JSON"), "{error}");
    }

    #[test]
    fn a_content_type_that_is_set_stays() {
        let request = Request::post("http://a.example/")
            .header("content-type", "application/vnd.api+json")
            .json("x");
        assert_eq!(
            request.header_map()["content-type"],
            "application/vnd.api+json"
        );
    }

    #[test]
    fn a_body_that_is_not_the_json_expected_is_a_decode_error() {
        let response = Response::from(http::Response::new("{".into()));
        let error = response.json::<Vec<u32>>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Json);
        assert!(error.source().unwrap().to_string().contains("line 1"));
    }

    #[test]
    fn a_byte_order_mark_before_json_is_skipped() {
        let response = Response::from(http::Response::new("\u{feff}7".into()));
        assert_eq!(response.json::<u8>().unwrap(), 7);
    }
}

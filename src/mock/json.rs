//! Mock responses with a JSON body.

use serde::Serialize;

use super::response::MockResponse;

impl MockResponse {
    /// Creates a response with status 200, `value` serialized as JSON, and `Content-Type:
    /// application/json`.
    ///
    /// # Panics
    ///
    /// Panics if `value` cannot be serialized.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> fanout::Result<()> {
    /// use fanout::{Fetcher, Mock, MockResponse};
    ///
    /// let mock = Mock::new().on("http://a.example/", MockResponse::json(&[1, 2, 3]));
    /// let fetcher = Fetcher::builder().transport(mock).build()?;
    /// assert_eq!(fetcher.fetch("http://a.example/").await?.json::<Vec<u8>>()?, [1, 2, 3]);
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::status(200)
                .body(body)
                .header("content-type", "application/json"),
            Err(error) => panic!("the value cannot be serialized as JSON: {error}"),
        }
    }
}

//! Answers in JSON.

use serde::Serialize;

use super::MockResponse;

impl MockResponse {
    /// 200 and this value as JSON.
    ///
    /// # Panics
    ///
    /// If the value cannot be serialised.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> fanout::Result<()> {
    /// use fanout::{MockResponse, Fetcher, Mock};
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
            Err(error) => panic!("the answer is no JSON: {error}"),
        }
    }
}

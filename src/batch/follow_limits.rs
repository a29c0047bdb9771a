//! Limits on the requests that a batch follows.

/// Limits which of the requests found in results are followed, for
/// [`AsCompleted::follow_links`](crate::AsCompleted::follow_links) and
/// [`AsCompleted::follow_next_link`](crate::AsCompleted::follow_next_link).
///
/// ```
/// use fanout::FollowLimits;
///
/// let limits = FollowLimits::default().max_depth(3).max_requests(1_000);
/// ```
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
#[must_use = "limits do nothing until they are passed to `follow_links` or `follow_next_link`"]
pub struct FollowLimits {
    pub(super) max_depth: Option<usize>,
    pub(super) max_requests: usize,
    pub(super) dedupe: bool,
}

impl Default for FollowLimits {
    fn default() -> Self {
        Self {
            max_depth: None,
            max_requests: 100_000,
            dedupe: true,
        }
    }
}

impl FollowLimits {
    /// Limits the number of links from an input to a request. Default: 16; 10,000 for
    /// [`follow_next_link`](crate::AsCompleted::follow_next_link).
    ///
    /// An input has depth 0, and the requests found in its result have depth 1. With a limit of 0,
    /// no request is followed.
    pub fn max_depth(mut self, links: usize) -> Self {
        self.max_depth = Some(links);
        self
    }

    /// Limits the number of requests followed in the whole batch, not counting inputs. Default:
    /// 100,000.
    pub fn max_requests(mut self, requests: usize) -> Self {
        self.max_requests = requests;
        self
    }

    /// Sets whether to skip requests that the batch has already made. Default: `true`.
    ///
    /// Two requests are equal if they have the same method and URL, without the fragment. A request
    /// with a body equals no other. The URLs to which a request was redirected count as requests of
    /// the batch, once the result of that request was taken. The fragment of a followed request is
    /// removed, because the request stands for all fragments of its URL. Inputs are always fetched.
    /// Recognizing equal requests takes about 40 bytes for each input and each request followed,
    /// until the batch ends.
    pub fn dedupe(mut self, dedupe: bool) -> Self {
        self.dedupe = dedupe;
        self
    }

    pub(super) fn with_default_max_depth(mut self, links: usize) -> Self {
        self.max_depth.get_or_insert(links);
        self
    }
}

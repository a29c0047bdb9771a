//! The order in which the requests of a batch start.

/// The priority of a request within its batch, for
/// [`RequestBuilder::priority`](crate::RequestBuilder::priority). Default: `Normal`.
///
/// Of the requests in the [look-ahead window](crate::Batch::look_ahead) that may start now,
/// requests with a higher priority start first, whatever their hosts. The order is strict: a low
/// request waits while any higher request may start. Retries and redirects keep the priority, and
/// start before new requests of the same priority.
///
/// A priority does not change any limit and does not interrupt requests in flight. It has no effect
/// between batches, which take turns. All single fetches together count as one batch.
#[derive(Copy, Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Priority {
    /// Starts after requests of normal and high priority.
    Low,
    /// Starts after requests of high priority and before requests of low priority. This is the
    /// default.
    #[default]
    Normal,
    /// Starts before requests of normal and low priority.
    High,
}

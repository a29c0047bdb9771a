//! Which requests of a batch go first.

/// How urgent a request is among those of its batch, from [`RequestBuilder::priority`](crate::RequestBuilder::priority).
///
/// Of the requests in a batch's [look-ahead window](crate::Batch::look_ahead) that may start now, those of a higher
/// priority start first, at whatever host. It is strict: a low one waits for as long as there are higher ones that may
/// start. What comes again (a retry, a redirect) keeps its priority, and goes before the fresh ones of the same. Several
/// batches still take turns with each other, whatever the priorities of their requests; all single fetches together are
/// one batch in this.
///
/// It changes no limit, and takes nothing from what is on the wire. Where many batches wait for one host, they get it in
/// the order in which they came to it.
#[derive(Copy, Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Priority {
    /// After all others.
    Low,
    /// What a request has that says nothing.
    #[default]
    Normal,
    /// Before all others.
    High,
}

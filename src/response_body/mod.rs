//! Response bodies: reading, decoding, and where a body goes.
//!
//! ```text
//!  wire or service ─► TransportBody ─► BodyReader ─► Decoder ─► memory   (collect, buffer_pool)
//!                                          │                 ├─► file     (file_sink, temp_file)
//!                                          │                 └─► handler  (handler_sink)
//!                                     Reservation
//! ```
//!
//! [`BodyReader`] yields the body as it was sent. It waits while the batch's
//! [body budget](crate::body_budget) has no room. A [`BodySink`] is the destination of one job's
//! body and survives from one attempt to the next, so a file download can [resume].

mod buffer_pool;
mod collect;
#[cfg_attr(
    not(any(
        feature = "brotli",
        feature = "deflate",
        feature = "gzip",
        feature = "zstd"
    )),
    path = "decode/disabled.rs"
)]
mod decode;
mod file_sink;
mod handler_sink;
mod reader;
mod resume;
mod sink;
mod temp_file;
mod transport_body;

pub(crate) use buffer_pool::BufferPool;
pub(crate) use collect::{drain, read_into_memory};
pub(crate) use decode::{Decoder, accept_encoding};
pub(crate) use handler_sink::{BodyHandler, HandlerSink, boxed_handler};
pub(crate) use reader::{BodyReader, DecodedBody};
pub(crate) use sink::BodySink;
pub(crate) use transport_body::{ServiceBody, TransportBody, service_error};

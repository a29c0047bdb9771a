//! Reads response bodies, decodes them, and writes them to memory, a file or the user's handler.
//!
//! ```text
//!  wire or service ─► TransportBody ─► BodyReader ─► Decoder ─► memory   (collect, buffer_pool)
//!                                          │                 ├─► file     (file_sink, part_file)
//!                                          │                 └─► handler  (handler_sink)
//!                                     BodyReservation
//! ```
//!
//! [`BodyReader`] yields the body before decoding. A read waits for room in the
//! batch's [body budget](crate::body_budget), which limits the memory of undelivered bodies. A
//! [`BodySink`] is the destination of one job's body. The sink is kept from one attempt of the job
//! to the next, so a file download can [resume].

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
mod part_file;
mod reader;
mod resume;
mod retry_renewal;
mod sink;
mod size_limit;
mod transport_body;

pub(crate) use buffer_pool::BufferPool;
pub(crate) use collect::{drain_body, read_into_memory};
pub(crate) use decode::{Decoder, accept_encoding};
pub(crate) use handler_sink::{
    BodyHandler, HandlerFuture, HandlerOutput, HandlerSink, type_erased_handler,
};
pub(crate) use reader::{BodyReader, DecodedBody};
pub(crate) use sink::BodySink;
pub(crate) use transport_body::{ServiceBody, TransportBody, service_error};

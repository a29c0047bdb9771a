//! Tests of the public API, most of them over real sockets.

mod support;

mod adaptive_concurrency;
mod batch_control;
mod body_backpressure;
mod body_progress;
#[cfg(feature = "json")]
mod budgets;
mod calling_contexts;
mod cancellation;
mod content_codings;
mod cookies;
mod cooperative_scheduling;
mod decompression_bombs;
mod derived_fetchers;
mod descriptor_limit;
mod header_injection;
mod http2;
mod keep_alive;
mod name_lookups;
mod non_utf8_headers;
mod one_result_per_input;
mod order_and_look_ahead;
mod proxies;
mod rate_limits;
mod read_with;
mod redirect_credentials;
mod redirects;
mod request_bodies;
mod response_framing;
mod response_heads;
mod retries;
mod reverse_proxy;
mod runtimes;
mod save_to;
mod secret_leaks;
mod sized_request_bodies;
mod slot_sharing;
mod stream_body;
mod test_servers;
mod timeouts_and_timings;
mod tls_certificates;
mod token_sources;
mod tracing_events;
mod unreachable_hosts;

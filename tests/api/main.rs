//! Tests of the public API, most of them over real sockets.

mod support;

mod adaptive_concurrency;
mod batch_control;
mod body_backpressure;
mod calling_contexts;
mod cancellation;
mod content_codings;
mod cookies;
mod decompression_bombs;
mod derived_fetchers;
mod descriptor_limit;
mod header_injection;
mod http2;
mod keep_alive;
mod name_lookups;
mod one_result_per_input;
mod order_and_look_ahead;
mod proxies;
mod rate_limits;
mod read_with;
mod redirect_credentials;
mod redirects;
mod request_bodies;
mod response_framing;
mod retries;
mod runtimes;
mod save_to;
mod secret_leaks;
mod slot_sharing;
mod test_servers;
mod timeouts_and_timings;
mod tls_certificates;
mod token_sources;
mod tracing_events;
mod unreachable_hosts;

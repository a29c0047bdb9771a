//! Lists how malformed and unusual input of servers and users is treated.
//!
//! Three principles decide. Input that determines where a response ends is strict: a mistake would
//! attribute bytes to another response. Input with one possible meaning is accepted in the way that
//! the standard or most clients accept it. Other input is ignored if the response is complete
//! without it, and is an error otherwise: data is never lost silently.
//!
//! The kinds of errors are those of [`ErrorKind`](crate::ErrorKind).
//!
//! # URLs
//!
//! | input | treatment | source |
//! |---|---|---|
//! | whitespace or line breaks around a URL | removed | [URL standard, basic URL parser](https://url.spec.whatwg.org/#concept-basic-url-parser) |
//! | a line break or a NUL within a URL | `InvalidRequest` | stricter than the URL standard, which would join two lines into one URL |
//! | a space or a character outside ASCII in a path or query | percent-encoded as UTF-8 | [URL standard, path state](https://url.spec.whatwg.org/#path-state) |
//! | a host name outside ASCII | converted with IDNA | [URL standard, host parsing](https://url.spec.whatwg.org/#host-parsing) |
//! | userinfo (`user:password@`) in the URL of a request | sent as basic authorization | RFC 7617 |
//! | a scheme other than `http` and `https` | `InvalidRequest` | RFC 9110 §4.2 |
//! | a URL of more than 65,534 bytes | `InvalidRequest` | the limit of the `http` crate |
//! | a fragment | not sent, and ignored when links are compared | RFC 9110 §7.1 |
//!
//! # Response heads in HTTP/1.1
//!
//! | input | treatment | source |
//! |---|---|---|
//! | any number of header fields | accepted within 256 KiB, counting 32 bytes for each field | RFC 9113 §6.5.2 defines the 32 bytes |
//! | a folded header line | the fold becomes a space | RFC 9112 §5.2 |
//! | whitespace between a name and the colon | removed | RFC 9112 §5.1 requires this of a proxy |
//! | a line without a colon, with an invalid name, or with a control character in the value | skipped | as in most clients |
//! | each of these in `Content-Length`, `Transfer-Encoding` or `Connection` | `Protocol` | RFC 9112 §11.2 on response splitting and smuggling |
//! | several spaces in the status line; no reason phrase | accepted | RFC 9112 §4 |
//! | a line feed without a carriage return; empty lines before the head | accepted | RFC 9112 §2.2 |
//! | a carriage return without a line feed, or a NUL | `Protocol` | RFC 9112 §2.2, RFC 9110 §5.5 |
//! | both `Content-Length` and `Transfer-Encoding`; different lengths; a coding other than `chunked` | `Protocol` | RFC 9112 §6.3 |
//! | the same `Content-Length` repeated | accepted | RFC 9112 §6.3 |
//! | more than 16 informational responses | `Protocol` | a limit of this crate, because RFC 9110 §15.2 has none |
//! | a head that is cut short | `Closed`, with a message that differs from the one for no byte | RFC 9112 §8 |
//! | header bytes of 0x80 and above | opaque bytes | RFC 9110 §5.5 (`obs-text`) |
//!
//! # Bodies
//!
//! | input | treatment | source |
//! |---|---|---|
//! | a body that ends before its length or its last chunk | `Truncated` | RFC 9112 §8 |
//! | a body that ends with the connection, over TLS without `close_notify` | `Truncated` | RFC 9112 §9.8 |
//! | malformed trailers after a complete body | skipped | RFC 9110 §6.5: trailers may be discarded |
//! | a body of a 204, a 304 or a response to `HEAD`, in HTTP/2 too | ignored | RFC 9110 §6.4.1 |
//! | an encoded body that ends with the connection and is cut short, even before its first byte | `Truncated` | RFC 9112 §8 |
//! | any other encoded body that is cut short or corrupt | `ContentEncoding` | RFC 9110 §8.4 |
//! | an empty body with `Content-Encoding`, and with `Content-Length: 0` or chunked | empty | as in browsers |
//! | several gzip members | decoded to one body | RFC 1952 §2.2 |
//! | zero bytes after gzip data | ignored | as in `gzip`; servers pad to a block |
//! | other bytes after encoded data | `ContentEncoding` | RFC 1952 §2.2 |
//! | an unknown content coding, or a coding of a 206 | returned encoded | RFC 9110 §8.4.1, §14.1.2 |
//! | more than five content codings | `ContentEncoding` | a limit of this crate |
//! | `charset` within the quoted value of another parameter | not a `charset` | RFC 9110 §5.6.6 |
//! | several `charset` parameters | the first counts | [MIME Sniffing standard](https://mimesniff.spec.whatwg.org/#parse-a-mime-type) |
//! | an unknown `charset` | ignored; the text is UTF-8 | [Encoding standard](https://encoding.spec.whatwg.org/#concept-encoding-get) |
//!
//! # HTTP/2
//!
//! | input | treatment | source |
//! |---|---|---|
//! | a 304 or a response to `HEAD` with `Content-Length`, ended by an empty DATA frame or by trailers | accepted | RFC 9113 §8.1.1 |
//! | another body whose length differs from `Content-Length` | `Protocol` | RFC 9113 §8.1.1 |
//! | a refused stream, or GOAWAY before the stream was processed | sent again on another connection | RFC 9113 §8.7 |
//! | a fresh connection that refuses its first stream with an error code | a failed attempt, retried after the backoff | a limit of this crate, against floods of connections |
//! | floods of frames without data | the connection is closed | RFC 9113 §10.5 |
//!
//! # Redirects and links
//!
//! | input | treatment | source |
//! |---|---|---|
//! | bytes of `Location` or of a `Link` target that are not UTF-8 | percent-encoded | as in browsers |
//! | such bytes in another part of a `Link` | opaque | RFC 9110 §5.5 |
//! | a redirect without `Location`, or with an empty one | the response is the result | [Fetch standard](https://fetch.spec.whatwg.org/#concept-response-location-url), for a missing one |
//! | a `Location` that is not an `http` or `https` URL | `Redirect`, with the response and the quoted `Location` | RFC 9110 §10.2.2 |
//! | a `Location` without a fragment | the fragment of the request | RFC 9110 §10.2.2 |
//! | userinfo in a `Location` or in a `Link` target | removed | stricter than the Fetch standard: a server must not choose credentials |
//! | `POST` after 301, 302 or 303 | becomes `GET` | RFC 9110 §15.4 |
//! | a `Link` with an unknown or a malformed parameter | the link is read | RFC 8288 §3, appendix B |
//! | a malformed `Link` that may hold the next page | an error in [`follow_next_link`](crate::AsCompleted::follow_next_link), and `None` in [`Response::link`](crate::Response::link) | a rule of this crate: pagination never ends silently |
//!
//! # Cookies
//!
//! | input | treatment | source |
//! |---|---|---|
//! | any form of date in `Expires` | the algorithm that searches for a time, a day, a month and a year | RFC 6265 §5.1.1 |
//! | an invalid `Expires` or `Max-Age` | that attribute is ignored | RFC 6265 §5.2.1, §5.2.2 |
//! | both `Expires` and `Max-Age` | `Max-Age` counts | RFC 6265 §5.3 |
//! | a value with quotes, spaces or bytes that are not UTF-8 | sent back unchanged | RFC 6265 §5.2 |
//! | a cookie without a name or without `=` | ignored | RFC 6265 §5.2 |
//! | a `Domain` that is a public suffix or not a parent of the host | the cookie is ignored | RFC 6265 §5.3 |
//! | `Secure` from a loopback host over `http` | accepted and sent | [Secure Contexts](https://www.w3.org/TR/secure-contexts/#is-origin-trustworthy), as in browsers and curl |
//! | `Secure` from another host over `http`, or a cookie that would shadow a `Secure` one | ignored | [RFC 6265bis §5.7](https://datatracker.ietf.org/doc/draft-ietf-httpbis-rfc6265bis/) |
//! | `__Secure-` and `__Host-` names without the required attributes | ignored | RFC 6265bis §4.1.3 |
//! | a name and value of more than 4096 bytes | ignored | RFC 6265 §6.1, as in browsers |
//! | more than 180 cookies of a site | the least recently used one is evicted, expired ones first | RFC 6265 §5.3 |
//! | more than 8,000 bytes of cookies for a request | the oldest ones with the shortest paths are not sent | a limit of this crate, because common servers reject longer lines |
//! | the order of cookies | longer paths first, then older cookies | RFC 6265 §5.4 |
//!
//! # `Retry-After` and rate limits
//!
//! | input | treatment | source |
//! |---|---|---|
//! | seconds, or a date in one of the three HTTP forms | accepted | RFC 9110 §10.2.3, §5.6.7 |
//! | `Retry-After: 30.5` | rounded up to 31 s | servers that count in fractions |
//! | a negative or malformed `Retry-After` | ignored | RFC 9110 §10.2.3 |
//! | `retry-after-ms`, digits with an optional fraction | milliseconds; precedes `Retry-After`, which counts if the value is malformed | [openai-python, `_parse_retry_after_header`](https://github.com/openai/openai-python/blob/main/src/openai/_base_client.py) |
//! | `x-should-retry: true` or `false`, in any case | precedes the status and the method; ignored in a 2xx | [openai-python, `_should_retry`](https://github.com/openai/openai-python/blob/main/src/openai/_base_client.py) |
//! | another value of `x-should-retry` | ignored | as in openai-python |
//! | a `Retry-After` above [`max_retry_after`](crate::Retry::max_retry_after) | not retried | a limit of this crate |
//! | a rate-limit reset in seconds, or as a Unix timestamp in s, ms, µs or ns | the magnitude determines the unit | no standard; the forms in use |
//! | a rate-limit reset as a Go duration (`12ms`, `6m0s`, `1h2m`, `1.5s`, `500µs`) | accepted; a negative one is ignored | [Go, `time.ParseDuration`](https://pkg.go.dev/time#ParseDuration), which [OpenAI](https://platform.openai.com/docs/guides/rate-limits) and [Groq](https://console.groq.com/docs/rate-limits) use |
//! | a rate-limit reset as an RFC 3339 time, with any offset and fraction | accepted | RFC 3339 §5.6, which [Anthropic](https://docs.anthropic.com/en/api/rate-limits) uses |
//! | a reset beyond these units, or malformed | ignored | no standard |
//! | `x-ratelimit-{limit,remaining,reset}-<name>`, also spelled `x-rate-limit-…` | lowers the budget `<name>` of the host; without one, `requests` limits the host and others are ignored | [OpenAI](https://platform.openai.com/docs/guides/rate-limits), Azure OpenAI |
//! | `anthropic-ratelimit-<name>-{limit,remaining,reset}` | the same | [Anthropic](https://docs.anthropic.com/en/api/rate-limits) |
//! | a limit or remaining number of `-1`, or another malformed number | ignored | Azure OpenAI |
//! | more than 32 named limits in a response | the others are ignored | a limit of this crate |
//! | `x-ratelimit-resource: <name>` | lowers the budget `<name>` of the host; without one, the limit applies to the host | [GitHub](https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api) |
//! | a 403 with `Retry-After`, or with `x-ratelimit-remaining: 0` and a reset | retried after that delay, as a 429 is | GitHub, the same page |
//! | a 429 with `x-github-request-id`, or a 403 with it and a body that names a secondary rate limit, without a delay in a header | retried after 1 min | GitHub, the same page |
//! | `RateLimit` and `RateLimit-Policy` | several limits: the strictest counts | [draft-ietf-httpapi-ratelimit-headers](https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/) |
//!
//! # Downloads
//!
//! | input | treatment | source |
//! |---|---|---|
//! | a 206 that ends before the total length | resumed again, or an error | RFC 9110 §15.3.7 |
//! | a 206 with another start, or another total than before | not appended; the download starts over or fails | RFC 9110 §14.4 |
//! | a part of the body (206) to a request without `Range` | `Truncated` | RFC 9110 §15.3.7 |
//! | a saved body with `Content-Encoding` | saved as it was sent, unless the request has [`decode_content(true)`](crate::RequestBuilder::decode_content) | RFC 9110 §8.4: the coding is a part of the representation |
//! | a changed or weak validator | the download starts over | RFC 9110 §13.1.5 |
//!
//! # Names and proxies
//!
//! | input | treatment | source |
//! |---|---|---|
//! | `localhost` and names under it | loopback, without a lookup | RFC 6761 §6.3 |
//! | an invalid proxy variable | an error of the requests that would use it only | as in curl |
//! | `HTTP_PROXY` in upper case | ignored | as in curl: a CGI server sets it from a request header |
//! | a path, query or fragment in a proxy URL | ignored | as in curl |
//! | an `@` after the host of a proxy URL | an error | the rest of a password whose `/`, `?` or `#` is not percent-encoded (RFC 3986 §3.2.1) |
//! | a proxy URL without a scheme | an HTTP proxy | as in curl |
//! | an invalid entry of `no_proxy` | ignored; the other entries apply | as in curl |

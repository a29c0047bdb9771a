//! Faults in connections that carry requests with bodies in memory.

use fanout::{Completed, ErrorKind, Fetcher, Proxy, Request, RequestBuilder, Response, Retry};
use http::{Method, Version};

use super::link::{Direction, Fault, FaultKind, Link};
use super::origin::{Origin, Protocol, ReceivedRequest, expected_body};
use super::{all_faults, fetcher, run_sample, timeouts, url};
use crate::settings::seed;

/// The requests of a case. The fault is on the first connection only.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Workload {
    /// One POST, which is never sent again.
    PostWithoutRetry,
    /// One POST, which is sent again if it cannot have been received.
    PostWithRetry,
    /// A GET, a POST and more GETs, one after another on HTTP/1.1.
    Sequence,
}

#[derive(Clone, Debug)]
struct Case {
    protocol: Protocol,
    workload: Workload,
    fault: Option<Fault>,
    seed: u64,
}

impl Case {
    fn requests(&self) -> Vec<(Method, &'static str)> {
        let post = (Method::POST, "/chunked");
        if self.workload != Workload::Sequence {
            return vec![post];
        }
        let mut requests = vec![(Method::GET, "/length"), post, (Method::GET, "/gzip")];
        // Without TLS, a cut is the regular end of a body without a length.
        if self.protocol.is_encrypted() {
            requests.push((Method::GET, "/until-close"));
        }
        requests
    }

    fn is_transparent(&self) -> bool {
        self.fault.is_none_or(|fault| !fault.kind.changes_bytes())
    }

    fn build_request(&self, link: &Link, method: &Method, path: &str) -> RequestBuilder {
        let address = link.address();
        let request = Request::new(method.clone(), url(self.protocol, address.port(), path));
        let proxy = match self.protocol {
            Protocol::SocksHttp1 => Proxy::all(format!("socks5h://{address}")),
            Protocol::ConnectTlsHttp1 => Proxy::all(format!("http://{address}")),
            _ => return with_body(request, method),
        };
        with_body(request, method).proxy(proxy.expect("a valid proxy"))
    }

    /// Fetches the requests of the case, and checks the results.
    async fn run(self, fetcher: Fetcher) -> (Origin, Link) {
        let origin = Origin::default();
        let serving = (origin.clone(), self.protocol);
        let link = Link::start(self.fault.into_iter().collect(), self.seed, move |io| {
            serving.0.clone().serve(io, serving.1)
        })
        .await;
        let requests = self.requests();
        let build = |(method, path): &(Method, &str)| self.build_request(&link, method, path);
        let inputs: Vec<RequestBuilder> = requests.iter().map(build).collect();
        let mut batch = fetcher
            .batch(inputs)
            .concurrency(if self.protocol.is_http2() { 4 } else { 1 })
            .timeouts(timeouts(
                self.protocol,
                self.fault.map_or(FaultKind::Cut, |fault| fault.kind),
            ));
        if self.workload == Workload::PostWithoutRetry {
            batch = batch.retry(Retry::off());
        }
        let mut completed = batch.as_completed();
        let mut has_result = vec![false; requests.len()];
        while let Some(completed) = completed.next().await {
            let (method, path) = &requests[completed.index];
            assert!(!has_result[completed.index], "a second result: {self:?}");
            has_result[completed.index] = true;
            self.check_result(&origin, method, path, completed);
        }
        assert!(!has_result.contains(&false), "no result: {self:?}");
        self.check_sent_once(&origin);
        (origin, link)
    }

    fn check_result(&self, origin: &Origin, method: &Method, path: &str, completed: Completed) {
        match completed.result {
            Ok(response) => self.check_response(path, &response),
            Err(error) => {
                let kind = error.kind();
                let context = format!("{self:?} {path}: {error:?}");
                let unexpected = [
                    ErrorKind::InvalidRequest,
                    ErrorKind::HostDown,
                    ErrorKind::Panicked,
                    ErrorKind::Deadline,
                    ErrorKind::Cancelled,
                ];
                assert!(!unexpected.contains(&kind), "{context}");
                assert!(self.fault.is_some(), "{context}");
                if !error.maybe_sent() {
                    assert!(!self.may_have_received(origin, method, path), "{context}");
                } else if self.workload == Workload::PostWithoutRetry {
                    assert!(
                        !self.is_fault_in_setup(),
                        "nothing can have been sent: {context}"
                    );
                }
                let is_retried = path != "/chunked" && kind != ErrorKind::Tls;
                if matches!(
                    self.fault,
                    Some(Fault {
                        kind: FaultKind::Cut | FaultKind::Reset,
                        ..
                    })
                ) {
                    assert!(!is_retried, "a retry succeeds: {context}");
                }
            }
        }
    }

    fn check_response(&self, path: &str, response: &Response) {
        let context = || format!("{self:?} {path}: {response:?} {:?}", response.bytes());
        let body = response.bytes();
        if self.is_transparent() || self.protocol.is_encrypted() {
            assert_eq!(response.status(), 200, "{}", context());
            assert_eq!(body[..], expected_body(path), "{}", context());
            return;
        }
        let header = |name| {
            response
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        // A flipped bit can change the case of a letter, which has no effect.
        let is_chunked = |codings: &str| codings.eq_ignore_ascii_case("chunked");
        let has_body = response.status() != 204 && response.status() != 304;
        if let Some(length) = header("content-length").filter(|_| has_body) {
            assert_eq!(length, body.len().to_string(), "{}", context());
        } else if has_body && header("transfer-encoding").is_some_and(is_chunked) {
            assert_eq!(body.len(), expected_body("/chunked").len(), "{}", context());
        } else if response.version() == Version::HTTP_11 && has_body {
            // A decoded body has no Content-Length. The checksum of gzip covers its content. A body
            // without a length in HTTP/1.0 ends with the connection.
            assert_eq!(body[..], expected_body("/gzip"), "{}", context());
        }
    }

    /// Whether the fault is at a byte before which the client cannot have sent a request.
    fn is_fault_in_setup(&self) -> bool {
        let (to_client, to_server) = self.protocol.min_setup_bytes();
        self.fault.is_some_and(|fault| match fault.direction {
            Direction::ToServer => fault.offset < to_server,
            Direction::ToClient => fault.offset < to_client,
        })
    }

    /// Whether the server has received a byte of the request, as far as it can be told apart from
    /// the other requests.
    fn may_have_received(&self, origin: &Origin, method: &Method, path: &str) -> bool {
        let request = ReceivedRequest {
            method: method.clone(),
            path: path.to_owned(),
        };
        if origin.requests().contains(&request) {
            return true;
        }
        // A proxy that reads changed bytes may take a part of its own request for the tunnel's.
        let may_misread = self.protocol.has_proxy() && !self.is_transparent();
        if may_misread {
            return false;
        }
        let connections = origin.connections();
        let is_alone = self.workload != Workload::Sequence;
        if self.protocol.is_http2() {
            let has_headers = connections.iter().any(|bytes| has_headers(bytes));
            return self.is_transparent() && is_alone && has_headers;
        }
        if is_alone {
            return !connections.is_empty();
        }
        let line = format!("{method} {path} ");
        let mut windows = connections
            .iter()
            .flat_map(|bytes| bytes.windows(line.len()));
        windows.any(|window| window == line.as_bytes())
    }

    /// A POST is not safe to repeat, so it is sent again only if the server received none of it.
    fn check_sent_once(&self, origin: &Origin) {
        let requests = origin.requests();
        let posts = requests
            .iter()
            .filter(|request| request.method == Method::POST);
        assert!(posts.count() <= 1, "{self:?}: {requests:?}");
        if self.workload != Workload::Sequence && self.is_transparent() {
            let connections = origin.connections();
            let received = connections
                .iter()
                .filter(|bytes| !self.protocol.is_http2() || has_headers(bytes));
            assert!(received.count() <= 1, "{self:?}: {connections:?}");
        }
    }
}

fn with_body(request: RequestBuilder, method: &Method) -> RequestBuilder {
    if *method == Method::POST {
        return request.body("a request body");
    }
    request
}

/// Whether the bytes of an HTTP/2 client contain a part of a HEADERS frame (RFC 9113 §4.1).
fn has_headers(bytes: &[u8]) -> bool {
    const PREFACE_LENGTH: usize = 24;
    let mut rest = bytes.get(PREFACE_LENGTH..).unwrap_or_default();
    while let [a, b, c, frame_type, payload @ ..] = rest {
        if *frame_type == 1 {
            return true;
        }
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        rest = payload.get(5 + length..).unwrap_or_default();
    }
    false
}

/// Injects faults at the bytes of a connection, `count` of them in the short form.
async fn inject(protocol: Protocol, count: usize) {
    crate::panics::count();
    let fetcher = fetcher(protocol);
    let mut rng = fastrand::Rng::with_seed(seed());
    let mut cases = Vec::new();
    for workload in [
        Workload::PostWithoutRetry,
        Workload::PostWithRetry,
        Workload::Sequence,
    ] {
        let case = |fault, seed| Case {
            protocol,
            workload,
            fault,
            seed,
        };
        let (_, link) = case(None, 0).run(fetcher.clone()).await;
        let carried = link.carried_bytes()[0];
        let faults = all_faults(carried.to_server, carried.to_client);
        cases.extend(
            faults
                .into_iter()
                .map(|fault| case(Some(fault), rng.u64(..))),
        );
    }
    run_sample(&fetcher, cases, &mut rng, count, |case, fetcher| async {
        case.run(fetcher).await;
    })
    .await;
}

injection_tests! {
    faults_in_http1_have_one_correct_result: Http1, 400;
    faults_in_http1_over_tls_have_one_correct_result: TlsHttp1, 200;
    faults_in_http2_have_one_correct_result: Http2, 300;
    faults_in_http2_over_tls_have_one_correct_result: TlsHttp2, 150;
    faults_in_socks_have_one_correct_result: SocksHttp1, 300;
    faults_in_connect_have_one_correct_result: ConnectTlsHttp1, 200;
}

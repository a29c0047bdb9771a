//! Faults in connections that carry a response whose body the caller of the fetch reads.

use fanout::{ErrorKind, Fetcher};

use super::link::{CarriedBytes, Fault, FaultKind, Link};
use super::origin::{Origin, Protocol, expected_body};
use super::{all_faults, fetcher, run_sample, timeouts, url};
use crate::settings::seed;

#[derive(Clone, Debug)]
struct Case {
    protocol: Protocol,
    path: &'static str,
    /// The fault of the first connection.
    fault: Option<Fault>,
    seed: u64,
}

impl Case {
    async fn run(self, fetcher: Fetcher) -> CarriedBytes {
        let (origin, protocol) = (Origin::default(), self.protocol);
        let link = Link::start(self.fault.into_iter().collect(), self.seed, move |io| {
            origin.clone().serve(io, protocol)
        })
        .await;
        let fault = self.fault.map_or(FaultKind::Cut, |fault| fault.kind);
        let sibling = fetcher.to_builder().timeouts(timeouts(protocol, fault));
        let fetcher = sibling.build().expect("valid settings");
        let url = url(protocol, link.address().port(), self.path);
        match fetcher.fetch(url).stream_body().await {
            Ok(mut response) => {
                assert_eq!(response.status(), 200, "{self:?}");
                let mut body = Vec::new();
                let mut error = None;
                while let Some(chunk) = response.next().await {
                    assert!(error.is_none(), "an item after an error: {self:?}");
                    match chunk {
                        Ok(chunk) => body.extend_from_slice(&chunk),
                        Err(failure) => error = Some(failure),
                    }
                }
                let expected = expected_body(self.path);
                assert!(expected.starts_with(&body), "{self:?}: {body:?}");
                match error {
                    None => assert_eq!(body, expected, "a short body: {self:?}"),
                    Some(error) => {
                        assert!(self.fault.is_some(), "{self:?}: {error:?}");
                        assert_ne!(error.kind(), ErrorKind::Panicked, "{self:?}: {error:?}");
                        assert!(error.maybe_sent(), "{self:?}: {error:?}");
                    }
                }
            }
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::Panicked, "{self:?}: {error:?}");
                let is_transient = matches!(fault, FaultKind::Cut | FaultKind::Reset);
                let is_retried = is_transient && error.kind() != ErrorKind::Tls;
                assert!(!is_retried, "a retry succeeds: {self:?}: {error:?}");
            }
        }
        // On a busy machine, a short connect timeout can expire before the link accepts.
        let carried_bytes = link.carried_bytes();
        carried_bytes.first().copied().unwrap_or_default()
    }
}

/// Injects faults at the bytes of a connection, `count` of them in the short form.
async fn inject(protocol: Protocol, count: usize) {
    crate::panics::count();
    let fetcher = fetcher(protocol);
    let mut rng = fastrand::Rng::with_seed(seed());
    let mut paths = vec!["/length", "/chunked", "/gzip"];
    // Without TLS, a cut is the regular end of a body without a length.
    if protocol.is_encrypted() {
        paths.push("/until-close");
    }
    let mut cases = Vec::new();
    for path in paths {
        let case = |fault, seed| Case {
            protocol,
            path,
            fault,
            seed,
        };
        let carried = case(None, 0).run(fetcher.clone()).await;
        let mut faults = all_faults(carried.to_server, carried.to_client);
        // Without TLS, changed bytes cannot be detected.
        faults.retain(|fault| protocol.is_encrypted() || !fault.kind.changes_bytes());
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
    faults_in_http1_streams_lead_to_the_whole_body_or_an_error: Http1, 200;
    faults_in_http1_streams_over_tls_lead_to_the_whole_body_or_an_error: TlsHttp1, 100;
    faults_in_http2_streams_lead_to_the_whole_body_or_an_error: Http2, 150;
    faults_in_http2_streams_over_tls_lead_to_the_whole_body_or_an_error: TlsHttp2, 75;
}

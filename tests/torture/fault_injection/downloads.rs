//! Faults in two connections of a download, which is resumed after each.

use std::path::Path;

use fanout::{ErrorKind, Fetcher, Request, Result, Timeouts};
use tokio::net::TcpStream;

use super::link::{CarriedBytes, Fault, FaultKind, Link};
use super::origin::{Origin, Protocol, expected_body};
use super::{all_faults, assert_idle, fetcher_builder, run_all, sample, timeouts, url};
use crate::settings::seed;
use crate::support::body_streams::TempDir;

/// The content of the target before the download.
const OLD_CONTENT: &[u8] = b"old";

#[derive(Clone, Debug)]
struct Case {
    protocol: Protocol,
    path: &'static str,
    /// The faults of the first connections.
    faults: Vec<Fault>,
    seed: u64,
}

impl Case {
    async fn run(self, fetcher: Fetcher, target: &Path) -> CarriedBytes {
        std::fs::write(target, OLD_CONTENT).expect("a writable directory");
        let protocol = self.protocol;
        let origin = Origin::default();
        let link = Link::start(self.faults.clone(), self.seed, move |io| {
            origin.clone().serve(io, protocol)
        })
        .await;
        let is_slow = |kind: &FaultKind| !matches!(kind, FaultKind::Cut | FaultKind::Reset);
        let slowest = self.faults.iter().map(|fault| fault.kind).find(is_slow);
        let fault_timeouts = timeouts(protocol, slowest.unwrap_or(FaultKind::Cut));
        let result = self.download(&fetcher, &link, target, fault_timeouts).await;
        if let Err(error) = &result {
            let content = std::fs::read(target).expect("the old file");
            assert_eq!(content, OLD_CONTENT, "{self:?}: {error:?}");
            assert_ne!(error.kind(), ErrorKind::Panicked, "{self:?}: {error:?}");
            let is_transient = self
                .faults
                .iter()
                .all(|fault| matches!(fault.kind, FaultKind::Cut | FaultKind::Reset));
            let is_retried = is_transient && error.kind() != ErrorKind::Tls;
            assert!(!is_retried, "a retry succeeds: {self:?}: {error:?}");
            // A later download succeeds, whatever the failed one has left. It meets no fault: those
            // of unopened connections are used up first, and a new Fetcher has no open connection.
            // So its timeouts can be too long for a busy machine to reach.
            for _ in &self.faults {
                let _ = TcpStream::connect(link.address()).await;
            }
            let no_fault = timeouts(protocol, FaultKind::Cut);
            let later_fetcher = fetcher_builder().build().expect("valid settings");
            let later = self.download(&later_fetcher, &link, target, no_fault).await;
            later.unwrap_or_else(|error| panic!("{self:?}: {error:?}"));
        }
        let content = std::fs::read(target).expect("a file");
        assert!(
            content == expected_body(self.path),
            "{self:?}: {result:?} {content:?}"
        );
        let _ = std::fs::remove_file(target);
        link.carried_bytes()[0]
    }

    async fn download(
        &self,
        fetcher: &Fetcher,
        link: &Link,
        target: &Path,
        timeouts: Timeouts,
    ) -> Result<()> {
        let url = url(self.protocol, link.address().port(), self.path);
        let batch = fetcher
            .batch([Request::get(url).save_to(target)])
            .timeouts(timeouts);
        let mut results = batch.gather().await;
        assert_eq!(results.len(), 1, "{self:?}");
        let response = results.remove(0)?;
        let length = expected_body(self.path).len() as u64;
        assert_eq!(
            response.saved_bytes(),
            Some(length),
            "{self:?}: {response:?}"
        );
        Ok(())
    }
}

/// Injects pairs of faults. In the short form, there are `count` pairs. In the long form, every
/// fault of the first connection is paired with three of the second.
async fn inject(protocol: Protocol, count: usize) {
    crate::panics::count();
    let directory = TempDir::new();
    let fetcher = fetcher_builder().build().expect("valid settings");
    let mut rng = fastrand::Rng::with_seed(seed());
    let case = |path, faults, seed| Case {
        protocol,
        path,
        faults,
        seed,
    };
    let target = directory.path("baseline");
    let carried = case("/file", Vec::new(), 0)
        .run(fetcher.clone(), &target)
        .await;
    let mut faults = all_faults(carried.to_server, carried.to_client);
    // Without TLS, changed bytes cannot be detected.
    faults.retain(|fault| protocol.is_encrypted() || !fault.kind.changes_bytes());
    let mut cases = Vec::new();
    for path in ["/file", "/file", "/file/unsized-rest"] {
        // An HTTP/2 body without a length is as good as one with a length.
        let path = if protocol == Protocol::TlsHttp2 {
            "/file"
        } else {
            path
        };
        for first in &faults {
            let second = *rng.choice(&faults).expect("a fault");
            cases.push(case(path, vec![*first, second], rng.u64(..)));
        }
    }
    let cases: Vec<_> = sample(cases, &mut rng, count)
        .into_iter()
        .enumerate()
        .collect();
    run_all(cases, |(number, case)| {
        let fetcher = fetcher.clone();
        let target = directory.path(&number.to_string());
        async move {
            case.run(fetcher, &target).await;
        }
    })
    .await;
    assert_idle(&fetcher).await;
    assert_eq!(directory.entry_names(), [""; 0], "no other file is left");
}

injection_tests! {
    interrupted_download_is_complete_or_an_error: Http1, 300;
    interrupted_download_over_tls_is_complete_or_an_error: TlsHttp1, 100;
    interrupted_download_over_http2_is_complete_or_an_error: TlsHttp2, 100;
}

//! Fetches URLs with one of the clients and reports the cost.
//!
//!     client CLIENT RUNTIME kept|dropped PROTOCOL IN_FLIGHT REQUESTS HOSTS PATH CERTIFICATE
//!
//! The output is one line of JSON. CPU and time are measured from before the client is created
//! until the last result is available. Dropping the results is not included.

mod clients;
mod usage;
mod work;

use clients::{fanout, hyper_util, reqwest};
use usage::Usage;
use work::Work;

fn main() {
    let work = Work::from_args().unwrap_or_else(|reason| {
        eprintln!("{reason}");
        std::process::exit(2);
    });
    let runtime = work.runtime();
    // Runs in a task, because the root future of `block_on` costs an additional wake-up.
    let run = runtime.spawn(run(work));
    match runtime.block_on(run) {
        Ok(report) => println!("{report}"),
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
}

async fn run(work: Work) -> String {
    let before = Usage::now();
    let tally = match work.client.as_str() {
        "gather" => fanout::gather(&work).await,
        "as_completed" => fanout::as_completed(&work).await,
        "rate" => fanout::at_a_rate(&work).await,
        "fetch" => fanout::one_by_one(&work).await,
        "reqwest-buffered" => reqwest::buffered(&work).await,
        "reqwest-spawn" => reqwest::spawned(&work).await,
        "reqwest-one" => reqwest::one_by_one(&work).await,
        "hyper-util" => hyper_util::workers(&work).await,
        "hyper-util-one" => hyper_util::one_by_one(&work).await,
        other => panic!("there is no client {other:?}"),
    };
    let used = Usage::now() - before;
    tally.report(&used)
}

//! Drains a batch on SIGTERM, as a service does when it is replaced: requests on the wire finish,
//! no request is started, and all others are returned as unsent.
//!
//! asyncio: `loop.add_signal_handler(SIGTERM, ...)`, a flag that every worker checks, and a list of
//! the inputs that were not processed.
//!
//! ```text
//! cargo run --release --example drain
//! ```

mod demo;

use fanout::{ErrorKind, Fetcher};

const ORDERS: usize = 500;

#[cfg(unix)]
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    use tokio::signal::unix::{SignalKind, signal};

    let server = demo::start().await;
    let mut orders =
        (0..ORDERS).map(|order| (format!("order {order}"), format!("{server}/delay/200")));

    let fetcher = Fetcher::new();
    let batch = fetcher.batch(orders.by_ref()).concurrency(10);
    let handle = batch.handle();

    // The signal no longer ends the process after this call.
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        terminate.recv().await;
        println!("SIGTERM: {}", handle.progress());
        handle.drain();
    });
    // systemd, Kubernetes and `docker stop` send SIGTERM. This example sends it to itself.
    let process = std::process::id();
    std::process::Command::new("sh")
        .args(["-c", &format!("sleep 0.5; kill -TERM {process}")])
        .spawn()?;

    let (mut finished, mut unsent) = (Vec::new(), Vec::new());
    let mut done = batch.as_completed();
    while let Some(completed) = done.next().await {
        match completed.result {
            Ok(response) => finished.push((completed.tag, response.status())),
            Err(error) if error.kind() == ErrorKind::Cancelled && !error.maybe_sent() => {
                unsent.push(completed.tag);
            }
            Err(error) => return Err(error.into()),
        }
    }
    println!("{} finished", finished.len());
    println!(
        "{} were not sent and are safe to send elsewhere:",
        unsent.len()
    );
    println!("{:?} ...", &unsent[..unsent.len().min(10)]);

    drop(done);
    let unread = orders.count();
    println!("{unread} inputs were not read");

    let result_count = finished.len() + unsent.len();
    assert_eq!(result_count + unread, ORDERS, "no order is lost");
    assert!(
        !unsent.is_empty(),
        "the signal came before the end of the batch"
    );
    assert!(finished.iter().all(|(_, status)| *status == 200));
    Ok(())
}

#[cfg(not(unix))]
fn main() {
    println!("this example needs SIGTERM");
}

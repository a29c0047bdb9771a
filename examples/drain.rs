//! Ends in good order on SIGTERM, as a service does that is being replaced: what is on the wire comes to its end, nothing
//! new is sent, and what is left is known by name, to be done by the next one.
//!
//! asyncio: `loop.add_signal_handler(SIGTERM, ...)`, a flag that each worker looks at before it takes the next, and a list
//! of what they did not come to.
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

    // From here on the signal no longer ends the process.
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        terminate.recv().await;
        println!("told to end: {}", handle.progress());
        handle.drain();
    });
    // In earnest it comes from systemd, Kubernetes or `docker stop`; here from this process itself, in a while.
    let process = std::process::id();
    std::process::Command::new("sh")
        .args(["-c", &format!("sleep 0.5; kill -TERM {process}")])
        .spawn()?;

    let (mut finished, mut left) = (Vec::new(), Vec::new());
    let mut done = batch.as_completed();
    while let Some(completed) = done.next().await {
        match completed.result {
            Ok(response) => finished.push((completed.tag, response.status())),
            Err(error) if error.kind() == ErrorKind::Cancelled && !error.maybe_sent() => {
                left.push(completed.tag);
            }
            Err(error) => return Err(error.into()),
        }
    }
    println!("{} finished", finished.len());
    println!(
        "{} were not sent, and are safe to hand to another:",
        left.len()
    );
    println!("{:?} ...", &left[..left.len().min(10)]);

    drop(done);
    let not_taken = orders.count();
    println!("{not_taken} were not even taken");

    let answered = finished.len() + left.len();
    assert_eq!(answered + not_taken, ORDERS, "none is lost");
    assert!(!left.is_empty(), "the signal came before the end");
    assert!(finished.iter().all(|(_, status)| *status == 200));
    Ok(())
}

#[cfg(not(unix))]
fn main() {
    println!("there is no SIGTERM here");
}

//! A progress bar for a batch: done, rate, bytes, the reasons why requests wait, and the busiest
//! host. For the progress of one large body, see `fanout::BodyProgress`.
//!
//! asyncio: tqdm's `as_completed`, which shows only the number of finished requests and the rate.
//!
//! ```text
//! cargo run --release --manifest-path examples/progress/Cargo.toml
//! ```

#[path = "../../demo/mod.rs"]
mod demo;

use std::time::Duration;

use fanout::{BatchHandle, Fetcher, Host, Rate};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use tokio::time::sleep;

const REQUESTS_PER_HOST: usize = 100;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A fast host, a slow host, and a host limited to 40 requests per second.
    let (fast, slow, strict) = (
        demo::start().await,
        demo::start().await,
        demo::start().await,
    );
    let urls = (0..REQUESTS_PER_HOST).flat_map(|_| {
        let [fast, slow] = [(&fast, 10), (&slow, 150)];
        let strict = (&strict, 10);
        [fast, slow, strict].map(|(server, millis)| format!("{server}/delay/{millis}"))
    });
    let fetcher = Fetcher::builder()
        .host(&strict, Host::new().rate(Rate::per_second(40)))
        .host(&slow, Host::new().concurrency(8))
        .build()?;

    // The iterator of a `Vec` has an exact length, which the estimated time left needs.
    let batch = fetcher.batch(urls.collect::<Vec<_>>()).concurrency(20);
    let handle = batch.handle();
    let display = tokio::spawn(show(handle.clone()));
    let results = batch.gather().await;
    display.await??;

    let progress = handle.progress();
    println!("{progress}");
    println!("{}", fetcher.snapshot());
    assert_eq!(results.len(), 3 * REQUESTS_PER_HOST);
    assert_eq!(
        (progress.completed(), progress.succeeded()),
        (3 * REQUESTS_PER_HOST, 3 * REQUESTS_PER_HOST)
    );
    assert!(progress.has_ended());
    Ok(())
}

/// Draws the bar until the batch ends. Without a terminal, prints a line every 500 ms.
async fn show(handle: BatchHandle) -> Result<(), indicatif::style::TemplateError> {
    let template = "{bar:40} {pos}/{len} {msg}";
    let style = ProgressStyle::with_template(template)?.progress_chars("=> ");
    let bar = ProgressBar::no_length().with_style(style);
    let interval = if bar.is_hidden() {
        Duration::from_millis(500)
    } else {
        Duration::from_millis(50)
    };
    loop {
        let progress = handle.progress();
        if progress.has_ended() {
            bar.finish_and_clear();
            return Ok(());
        }
        bar.set_length(progress.total().unwrap_or(progress.inputs_pulled()) as u64);
        bar.set_position(progress.completed() as u64);
        let mut message = format!("{:.0}/s", progress.completed_per_second());
        if let Some(left) = progress.eta() {
            message += &format!(", {:.1} s left", left.as_secs_f64());
        }
        message += &format!(", {}", HumanBytes(progress.body_bytes()));
        message += &format!(
            ", {} in flight, {}",
            progress.in_flight(),
            progress.waiting()
        );
        if let Some(host) = progress.busiest_hosts().first() {
            message += &format!("; {host}");
        }
        if bar.is_hidden() {
            println!("{}/{} {message}", bar.position(), bar.length().unwrap_or(0));
        }
        bar.set_message(message);
        sleep(interval).await;
    }
}

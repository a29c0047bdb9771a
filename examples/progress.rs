//! A progress bar over a batch: how much is done, how fast, what the rest waits for, and which hosts are behind.
//!
//! asyncio: tqdm's `as_completed`, which counts what is done and knows nothing of why the rest is not.
//!
//! ```text
//! cargo run --release --example progress
//! ```

mod demo;

use std::time::Duration;

use fanout::{BatchHandle, Fetcher, Host, Rate};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::sleep;

const REQUESTS_PER_HOST: usize = 100;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Three hosts: one answers at once, one takes its time, and one is asked 40 times a second.
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

    // The iterator of a `Vec` knows how many there are; `flat_map` does not, and then there would be no time left to show.
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

/// Draws the bar until the batch has ended; where there is no terminal, prints a line now and then.
async fn show(handle: BatchHandle) -> Result<(), indicatif::style::TemplateError> {
    let template = "{bar:40} {pos}/{len} {msg}";
    let style = ProgressStyle::with_template(template)?.progress_chars("=> ");
    let bar = ProgressBar::no_length().with_style(style);
    let interval = match bar.is_hidden() {
        true => Duration::from_millis(500),
        false => Duration::from_millis(50),
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

//! Runs test cases one at a time and prints a table of the results.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::endpoint::Endpoint;

/// A case that takes longer fails.
const CASE_TIMEOUT: Duration = Duration::from_secs(40);

/// The duration of a case that takes longer is printed.
const SLOW_CASE_THRESHOLD: Duration = Duration::from_secs(4);

#[derive(Default)]
pub struct Suite {
    rows: Vec<Row>,
}

struct Row {
    name: &'static str,
    protocol: String,
    passed: usize,
    failed: Vec<String>,
    duration: Duration,
}

impl Suite {
    /// Runs one case. It fails if it panics or times out.
    pub async fn case<F>(&mut self, endpoint: &Endpoint, name: &str, case: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let start = Instant::now();
        let task = tokio::spawn(case);
        let abort = task.abort_handle();
        let result = match timeout(CASE_TIMEOUT, task).await {
            Ok(joined) => joined.map_err(|error| error.to_string()),
            Err(_) => Err(format!("timed out after {CASE_TIMEOUT:?}")),
        };
        abort.abort();
        if start.elapsed() > SLOW_CASE_THRESHOLD {
            println!(
                "{} {} {name}: {:.1?}",
                endpoint.name,
                endpoint.protocol(),
                start.elapsed()
            );
        }
        let row = self.row(endpoint);
        row.duration += start.elapsed();
        match result {
            Ok(()) => row.passed += 1,
            Err(reason) => row.failed.push(format!("{name}: {reason}")),
        }
    }

    fn row(&mut self, endpoint: &Endpoint) -> &mut Row {
        let (name, protocol) = (endpoint.name, endpoint.protocol());
        let index = self
            .rows
            .iter()
            .position(|row| row.name == name && row.protocol == protocol);
        let index = index.unwrap_or_else(|| {
            self.rows.push(Row {
                name,
                protocol,
                passed: 0,
                failed: Vec::new(),
                duration: Duration::ZERO,
            });
            self.rows.len() - 1
        });
        &mut self.rows[index]
    }

    /// Prints the table.
    pub fn report(&self) -> ExitCode {
        println!(
            "\n{:<12} {:<22} {:>7} {:>7} {:>8}",
            "server", "protocol", "passed", "failed", "seconds"
        );
        let (mut passed, mut failed) = (0, 0);
        for row in &self.rows {
            println!(
                "{:<12} {:<22} {:>7} {:>7} {:>8.1}",
                row.name,
                row.protocol,
                row.passed,
                row.failed.len(),
                row.duration.as_secs_f64()
            );
            passed += row.passed;
            failed += row.failed.len();
        }
        println!(
            "{passed} cases passed, {failed} failed, in {} rows",
            self.rows.len()
        );
        for row in &self.rows {
            for reason in &row.failed {
                println!("FAILED {} {} {reason}", row.name, row.protocol);
            }
        }
        ExitCode::from(u8::from(failed > 0 || passed == 0))
    }
}

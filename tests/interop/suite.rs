//! Runs the cases of a site, each by itself, and counts.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::site::Site;

/// No case takes longer.
const LIMIT: Duration = Duration::from_secs(40);

/// A case that takes longer is worth a line.
const REMARKABLE: Duration = Duration::from_secs(4);

#[derive(Default)]
pub struct Suite {
    rows: Vec<Row>,
}

struct Row {
    name: &'static str,
    protocol: String,
    passed: usize,
    failed: Vec<String>,
    took: Duration,
}

impl Suite {
    /// A case of this site has passed unless it panics, or takes too long.
    pub async fn case<F>(&mut self, site: &Site, name: &str, case: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let start = Instant::now();
        let task = tokio::spawn(case);
        let abort = task.abort_handle();
        let result = match timeout(LIMIT, task).await {
            Ok(joined) => joined.map_err(|error| error.to_string()),
            Err(_) => Err(format!("not done after {LIMIT:?}")),
        };
        abort.abort();
        if start.elapsed() > REMARKABLE {
            println!(
                "{} {} {name}: {:.1?}",
                site.name,
                site.protocol(),
                start.elapsed()
            );
        }
        let row = self.row(site);
        row.took += start.elapsed();
        match result {
            Ok(()) => row.passed += 1,
            Err(reason) => row.failed.push(format!("{name}: {reason}")),
        }
    }

    fn row(&mut self, site: &Site) -> &mut Row {
        let (name, protocol) = (site.name, site.protocol());
        let at = self
            .rows
            .iter()
            .position(|row| row.name == name && row.protocol == protocol);
        let at = at.unwrap_or_else(|| {
            self.rows.push(Row {
                name,
                protocol,
                passed: 0,
                failed: Vec::new(),
                took: Duration::ZERO,
            });
            self.rows.len() - 1
        });
        &mut self.rows[at]
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
                row.took.as_secs_f64()
            );
            passed += row.passed;
            failed += row.failed.len();
        }
        println!(
            "{passed} cells passed, {failed} failed, of {} rows",
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

//! Runs a test in its own process, where it may count or change process-wide state: descriptors,
//! memory, environment variables, the global log subscriber.
//!
//! ```text
//! #[test]
//! fn counts_descriptors() {
//!     if !own_process::is_child() {
//!         return own_process::run(test_path!(counts_descriptors));
//!     }
//!     // …
//! }
//! ```

use std::env;
use std::process::Command;

/// Set in the child process.
const CHILD: &str = "FANOUT_TEST_CHILD";

/// The path of a test of the calling module.
macro_rules! test_path {
    ($test:ident) => {
        concat!(module_path!(), "::", stringify!($test))
    };
}
pub(crate) use test_path;

/// Whether this process runs a single test.
pub fn is_child() -> bool {
    env::var_os(CHILD).is_some()
}

/// Runs the test at `path` in a child process, and panics unless it passes.
pub fn run(path: &str) {
    run_with(path, &[]);
}

/// The command that runs the test at `path` in a child process.
pub fn command(path: &str) -> Command {
    let (_, name) = path.split_once("::").expect("a path starts with its crate");
    let mut command = Command::new(env::current_exe().expect("the test binary has a path"));
    command
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1");
    command
}

/// Like [`run`], with environment variables.
pub fn run_with(path: &str, variables: &[(&str, &str)]) {
    let output = command(path)
        .envs(variables.iter().copied())
        .output()
        .expect("the test binary starts");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    // A name that matches no test succeeds too, with `0 passed`.
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "{path} failed in its own process:\n{stdout}\n{stderr}"
    );
}

//! The tests that `SECURITY.md` names.

use std::fs;
use std::path::Path;

/// Appends the source of every Rust file below `directory`.
fn read_sources(directory: &Path, sources: &mut String) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            read_sources(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&fs::read_to_string(path).expect("a source file"));
        }
    }
}

/// The test names in the last column of each table row.
fn named_tests(text: &str) -> Vec<&str> {
    let rows = text
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let cells = rows.map(|row| row.rsplit(" | ").next().expect("a cell"));
    cells
        .filter(|cell| *cell != "tests")
        .flat_map(|cell| cell.split(", "))
        .collect()
}

#[test]
fn every_test_that_the_security_policy_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("SECURITY.md")).expect("the security policy");
    let mut sources = String::new();
    read_sources(&root.join("src"), &mut sources);
    read_sources(&root.join("tests"), &mut sources);
    let names = named_tests(&text);
    assert!(names.len() > 50, "{names:?}");
    for cell in names {
        let name = cell
            .strip_prefix('`')
            .and_then(|name| name.strip_suffix('`'));
        let name = name.unwrap_or_else(|| panic!("{cell} is not the name of a test"));
        // A macro declares some of the tests.
        let is_declared = [format!("fn {name}()"), format!("    {name}: ")]
            .iter()
            .any(|declaration| sources.contains(declaration));
        assert!(is_declared, "there is no test {name}");
    }
}

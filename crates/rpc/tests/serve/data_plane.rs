//! All of this again for the data plane, whose HTTP/2 is another.

use std::process::Command;

/// Set for the run in which worlds and channels are of the data plane.
const MEANT: &str = "WOLFPACK_TEST_DATA_PLANE";

pub(crate) fn is_meant() -> bool {
    std::env::var_os(MEANT).is_some()
}

#[test]
fn the_data_plane_keeps_to_all_of_this() {
    if is_meant() {
        return;
    }
    let mut suite = Command::new(std::env::current_exe().unwrap());
    suite.env(MEANT, "1").args(["--test-threads", "2"]);
    let output = suite.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let passed = text.lines().filter(|line| line.ends_with("... ok")).count();
    assert!(passed > 50, "only {passed} ran");
}

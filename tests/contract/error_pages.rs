//! Every reason of the table has its page, and the page says the same.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use wolfpack_types::Reason;

#[test]
fn every_reason_has_a_page_that_agrees_and_no_page_is_left_over() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors");
    let mut pages: BTreeSet<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let index = fs::read_to_string(folder.join("README.md")).unwrap();
    assert!(pages.remove("README.md"));
    for reason in Reason::ALL {
        let file = format!("{reason}.md");
        assert!(pages.remove(&file), "docs/errors/{file} is missing");
        let page = fs::read_to_string(folder.join(&file)).unwrap();
        let code = wolfpack_rpc_code(*reason);
        for part in [reason.summary(), &format!("`{code}`"), "**Causes.** ", "**What to do.** "] {
            assert!(page.contains(part), "docs/errors/{file} does not say {part:?}");
        }
        let retry = if reason.retryable() { "| yes |" } else { "| no |" };
        assert!(page.contains(retry), "docs/errors/{file} disagrees about trying again");
        assert!(index.contains(&format!("[{reason}]({file})")), "the index lacks {reason}");
    }
    assert!(pages.is_empty(), "pages of no reason: {pages:?}");
}

/// The code as gRPC prints it.
fn wolfpack_rpc_code(reason: Reason) -> String {
    let mut name = String::new();
    for (at, letter) in format!("{:?}", reason.code()).char_indices() {
        if at > 0 && letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

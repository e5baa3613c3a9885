//! Metrics of several services of one process on one page.

use std::collections::BTreeMap;
use std::fmt::Write as _;

#[derive(Default)]
struct Family {
    help: Option<String>,
    kind: Option<String>,
    samples: Vec<String>,
}

/// The texts as one: each family once, as the format demands, and every sample
/// with the label `service` of where it came from.
#[must_use]
pub fn page(texts: &[(&str, String)]) -> String {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for (service, text) in texts {
        let mut current = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
                families
                    .entry(name.to_owned())
                    .or_default()
                    .help
                    .get_or_insert_with(|| help.to_owned());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
                name.clone_into(&mut current);
                families
                    .entry(current.clone())
                    .or_default()
                    .kind
                    .get_or_insert_with(|| kind.to_owned());
            } else if !line.is_empty() && !line.starts_with('#') {
                let (name, sample) = labelled(line, service);
                // Histograms have samples with names of their own.
                let family =
                    if !current.is_empty() && name.starts_with(&current) { &current } else { name };
                families.entry(family.to_owned()).or_default().samples.push(sample);
            }
        }
    }
    let mut page = String::new();
    for (name, family) in families.iter().filter(|(_, family)| !family.samples.is_empty()) {
        // Writing to a string does not fail.
        if let Some(help) = &family.help {
            let _ = writeln!(page, "# HELP {name} {help}");
        }
        if let Some(kind) = &family.kind {
            let _ = writeln!(page, "# TYPE {name} {kind}");
        }
        for sample in &family.samples {
            let _ = writeln!(page, "{sample}");
        }
    }
    page
}

/// The name of a sample, and the sample with one more label.
fn labelled<'a>(line: &'a str, service: &str) -> (&'a str, String) {
    let end = line.find(['{', ' ']).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let sample = match rest.strip_prefix('{') {
        Some(rest) if rest.starts_with('}') => format!("{name}{{service=\"{service}\"{rest}"),
        Some(rest) => format!("{name}{{service=\"{service}\",{rest}"),
        None => format!("{name}{{service=\"{service}\"}}{rest}"),
    };
    (name, sample)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_is_there_once_with_all_its_samples() {
        let one = "# HELP calls Calls.\n# TYPE calls counter\ncalls{code=\"OK\"} 3\n\
                   # TYPE took histogram\ntook_bucket{le=\"1\"} 2\ntook_sum 1\n";
        let other = "# HELP calls Calls.\n# TYPE calls counter\ncalls 7\n# a remark\n";
        let page = page(&[("a", one.to_owned()), ("b", other.to_owned())]);
        assert_eq!(
            page,
            "# HELP calls Calls.\n# TYPE calls counter\n\
             calls{service=\"a\",code=\"OK\"} 3\ncalls{service=\"b\"} 7\n\
             # TYPE took histogram\ntook_bucket{service=\"a\",le=\"1\"} 2\ntook_sum{service=\"a\"} 1\n"
        );
    }
}

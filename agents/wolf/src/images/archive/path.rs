//! Paths in an archive: they stay in it.

/// The parts of a path that stays inside.
pub(super) fn inside(path: &[u8], longest: usize) -> Result<Vec<&[u8]>, String> {
    let told =
        || String::from_utf8_lossy(path.get(..path.len().min(100)).unwrap_or(path)).into_owned();
    if path.is_empty() || path.len() > longest || path.contains(&0) {
        return Err("a path is empty or too long".to_owned());
    }
    if path.starts_with(b"/") {
        return Err(format!("the path {:?} is absolute", told()));
    }
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    if parts.contains(&&b".."[..]) {
        return Err(format!("the path {:?} leaves the archive", told()));
    }
    Ok(parts.into_iter().filter(|part| !part.is_empty() && *part != b".").collect())
}

/// Whether a symbolic link at `from` leads to a place inside. What it leads
/// through may be a link, too; each of them stays inside by itself.
pub(super) fn link_inside(from: &[&[u8]], link: &[u8]) -> Result<(), String> {
    let refused = || {
        let told = String::from_utf8_lossy(link.get(..link.len().min(100)).unwrap_or(link));
        format!("the link to {told:?} leaves the archive")
    };
    if link.is_empty() || link.starts_with(b"/") || link.contains(&0) {
        return Err(refused());
    }
    let mut depth = from.len().saturating_sub(1);
    for part in link.split(|byte| *byte == b'/') {
        depth = match part {
            b"" | b"." => depth,
            b".." => depth.checked_sub(1).ok_or_else(refused)?,
            _ => depth + 1,
        };
    }
    Ok(())
}

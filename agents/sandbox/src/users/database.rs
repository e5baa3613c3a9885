//! The two databases as text.

use std::io::Read as _;
use std::path::Path;

/// More of a database than this is not read: the file belongs to the sandbox.
const LIMIT: u64 = 4 << 20;

/// A line of `/etc/passwd`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passwd {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Home directory; may be empty.
    pub home: String,
}

/// A line of `/etc/group`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Name.
    pub name: String,
    /// Group id.
    pub gid: u32,
    /// Login names of its members.
    pub members: Vec<String>,
}

/// Users and groups of an image. Lines that do not parse are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Databases {
    /// Lines of `/etc/passwd` in order; the first of a name counts.
    pub users: Vec<Passwd>,
    /// Lines of `/etc/group` in order; the first of a name counts.
    pub groups: Vec<Group>,
}

impl Databases {
    /// Reads `etc/passwd` and `etc/group` under `root`. One that is missing,
    /// unreadable or no regular file is empty.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        Self::parse(&text(&root.join("etc/passwd")), &text(&root.join("etc/group")))
    }

    /// Reads the two texts.
    #[must_use]
    pub fn parse(passwd: &str, group: &str) -> Self {
        Self {
            users: passwd.lines().filter_map(user_of).collect(),
            groups: group.lines().filter_map(group_of).collect(),
        }
    }
}

fn text(path: &Path) -> String {
    // A pipe in its place would block the reader for ever.
    if !path.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return String::new();
    }
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(LIMIT).read_to_end(&mut bytes));
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

fn user_of(line: &str) -> Option<Passwd> {
    let mut fields = line.trim_end().split(':');
    let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
    let _password = fields.next()?;
    let uid = fields.next()?.parse().ok().filter(|uid| *uid != u32::MAX)?;
    let gid = fields.next()?.parse().ok().filter(|gid| *gid != u32::MAX)?;
    let _description = fields.next()?;
    let home = fields.next().unwrap_or_default();
    Some(Passwd { name: name.to_owned(), uid, gid, home: home.to_owned() })
}

fn group_of(line: &str) -> Option<Group> {
    let mut fields = line.trim_end().split(':');
    let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
    let _password = fields.next()?;
    let gid = fields.next()?.parse().ok().filter(|gid| *gid != u32::MAX)?;
    let members = fields.next().unwrap_or_default();
    let members =
        members.split(',').filter(|member| !member.is_empty()).map(str::to_owned).collect();
    Some(Group { name: name.to_owned(), gid, members })
}

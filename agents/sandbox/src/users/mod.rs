//! Who a program runs as. A static binary must not ask the C library, whose
//! name services load code at run time, so `/etc/passwd` and `/etc/group` are
//! read here, with the meaning that container engines give to a user's name.

mod database;

use std::path::Path;

pub use database::{Databases, Group, Passwd};

/// A user resolved to what the kernel and a shell need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids, without duplicates.
    pub groups: Vec<u32>,
    /// Login name; the uid in digits when the image does not know it.
    pub name: String,
    /// Home directory; `/` when the image does not say.
    pub home: String,
}

impl User {
    /// Whether it is the superuser.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }
}

/// A user or group that the image does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// No line of `/etc/passwd` has this name.
    #[error("there is no user {0:?} in /etc/passwd of the image; name one that is there, or a uid")]
    NoUser(String),
    /// No line of `/etc/group` has this name.
    #[error("there is no group {0:?} in /etc/group of the image; name one that is there, or a gid")]
    NoGroup(String),
    /// A number beyond what the kernel takes.
    #[error("{0:?} is not an id the kernel takes; ids are 0 to 4294967294")]
    OutOfRange(String),
}

/// Resolves `name`, `uid`, `name:group` or `uid:gid` (any mix of names and
/// numbers) against the databases under `root`; empty means root.
///
/// A missing database is an empty one: an image from scratch has neither. With
/// an explicit group there are no supplementary groups, as in engines.
///
/// # Errors
/// A name that is not in its database, or a number out of range.
pub fn resolve(root: &Path, wanted: &str) -> Result<User, UserError> {
    Databases::read(root).resolve(wanted)
}

impl Databases {
    /// [`resolve`] against databases that were already read.
    ///
    /// # Errors
    /// As [`resolve`].
    pub fn resolve(&self, wanted: &str) -> Result<User, UserError> {
        let (user, group) = match wanted.split_once(':') {
            Some((user, group)) => (user, (!group.is_empty()).then_some(group)),
            None => (wanted, None),
        };
        let user = if user.is_empty() { "0" } else { user };
        // A name in the database wins over the same text read as a number.
        let entry = self.users.iter().find(|entry| entry.name == user);
        let entry = match (entry, number(user)?) {
            (Some(entry), _) => Some(entry.clone()),
            (None, Some(uid)) => {
                Some(self.users.iter().find(|entry| entry.uid == uid).cloned().unwrap_or_else(
                    || Passwd { name: uid.to_string(), uid, gid: 0, home: "/".to_owned() },
                ))
            }
            (None, None) => None,
        };
        let entry = entry.ok_or_else(|| UserError::NoUser(user.to_owned()))?;
        let (gid, groups) = match group {
            Some(group) => (self.group(group)?, Vec::new()),
            None => (entry.gid, self.supplementary(&entry)),
        };
        let home = if entry.home.is_empty() { "/".to_owned() } else { entry.home };
        Ok(User { uid: entry.uid, gid, groups, name: entry.name, home })
    }

    fn group(&self, wanted: &str) -> Result<u32, UserError> {
        match self.groups.iter().find(|group| group.name == wanted) {
            Some(group) => Ok(group.gid),
            None => number(wanted)?.ok_or_else(|| UserError::NoGroup(wanted.to_owned())),
        }
    }

    fn supplementary(&self, user: &Passwd) -> Vec<u32> {
        let mut groups: Vec<u32> = self
            .groups
            .iter()
            .filter(|group| group.members.contains(&user.name))
            .map(|group| group.gid)
            .collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }
}

/// `Some` for digits; the highest number means "no change" to the kernel.
fn number(text: &str) -> Result<Option<u32>, UserError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(id) if id != u32::MAX => Ok(Some(id)),
        _ => Err(UserError::OutOfRange(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn databases() -> Databases {
        Databases::parse(
            "root:x:0:0:root:/root:/bin/bash\n# a comment\nbroken line\nwolf:x:1000:1000::/home/wolf:/bin/bash\n\
             nohome:x:7:7:::\n77:x:2000:2000::/odd:/bin/sh\nnegative:x:-1:0::/:\n",
            "root:x:0:\nwolf:x:1000:\nvideo:x:44:wolf,other\naudio:x:29:wolf\nvideo2:x:44:wolf\n",
        )
    }

    #[test]
    fn the_forms_that_engines_take() {
        let all = databases();
        let root = all.resolve("").unwrap();
        assert_eq!((root.uid, root.gid, root.home.as_str(), root.is_root()), (0, 0, "/root", true));
        let wolf = all.resolve("wolf").unwrap();
        assert_eq!((wolf.uid, wolf.gid, wolf.groups.as_slice()), (1000, 1000, [29, 44].as_slice()));
        assert_eq!(all.resolve("1000").unwrap(), wolf, "a known number is the known user");
        let grouped = all.resolve("wolf:video").unwrap();
        assert_eq!((grouped.gid, grouped.groups.len()), (44, 0), "an explicit group stands alone");
        let stranger = all.resolve("4242").unwrap();
        assert_eq!(
            (stranger.uid, stranger.gid, stranger.name.as_str(), stranger.home.as_str()),
            (4242, 0, "4242", "/")
        );
        let both = all.resolve("4242:4343").unwrap();
        assert_eq!((both.uid, both.gid), (4242, 4343));
        assert_eq!(all.resolve("nohome").unwrap().home, "/");
        assert_eq!(all.resolve("77").unwrap().uid, 2000, "a name of digits wins");
        assert_eq!(all.resolve("wolf:").unwrap(), wolf);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let all = databases();
        assert_eq!(all.resolve("nobody"), Err(UserError::NoUser("nobody".into())));
        assert_eq!(all.resolve("wolf:wheel"), Err(UserError::NoGroup("wheel".into())));
        assert_eq!(all.resolve("4294967295"), Err(UserError::OutOfRange("4294967295".into())));
        assert_eq!(all.resolve("99999999999"), Err(UserError::OutOfRange("99999999999".into())));
        assert!(all.resolve("negative").is_err(), "a line with an id that is none is no line");
    }

    #[test]
    fn an_image_from_scratch_has_root_and_numbers_only() {
        let empty = tempfile::tempdir().unwrap();
        let root = resolve(empty.path(), "").unwrap();
        assert_eq!((root.uid, root.gid, root.home.as_str()), (0, 0, "/"));
        assert_eq!(resolve(empty.path(), "12:13").unwrap().gid, 13);
        assert!(resolve(empty.path(), "root").is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_without_panic(passwd in ".{0,200}", group in ".{0,200}", wanted in ".{0,20}") {
            let _ = Databases::parse(&passwd, &group).resolve(&wanted);
        }
    }
}

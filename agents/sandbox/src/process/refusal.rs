//! Why a program was not started, as the helper tells it to the agent.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// The step that failed. `errno` is the kernel's number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The program could not be executed.
    Program {
        /// As it was asked for.
        name: String,
        /// The kernel's answer.
        errno: i32,
    },
    /// The working directory could not be entered.
    Directory {
        /// As it was asked for.
        path: String,
        /// The kernel's answer.
        errno: i32,
    },
    /// The user could not be taken on.
    Identity {
        /// What was tried.
        step: String,
        /// The kernel's answer.
        errno: i32,
    },
    /// The session or its terminal could not be made.
    Session {
        /// What was tried.
        step: String,
        /// The kernel's answer.
        errno: i32,
    },
}

impl Refusal {
    /// The exit code that shells and engines give to such a failure: 127 for a
    /// program that is not there, 126 for everything else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Program { errno, .. } if *errno == Errno::NOENT.raw_os_error() => 127,
            Self::Program { .. }
            | Self::Directory { .. }
            | Self::Identity { .. }
            | Self::Session { .. } => 126,
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = |errno: i32| Errno::from_raw_os_error(errno);
        match self {
            Self::Program { name, errno } => match known(*errno) {
                Errno::NOENT if name.contains('/') => {
                    write!(
                        f,
                        "there is no program {name:?} in the sandbox, or its interpreter is missing; check the path"
                    )
                }
                Errno::NOENT => {
                    write!(
                        f,
                        "there is no program {name:?} in the sandbox's PATH; check the name or give the full path"
                    )
                }
                Errno::ACCESS => {
                    write!(
                        f,
                        "{name:?} is not executable for this user; check its mode or run as another user"
                    )
                }
                Errno::NOEXEC => write!(f, "{name:?} is not a program for this machine"),
                Errno::TOOBIG => {
                    f.write_str("arguments and environment are too long; pass less, or a file")
                }
                errno => write!(f, "{name:?} could not be executed: {errno}"),
            },
            Self::Directory { path, errno } => match known(*errno) {
                Errno::NOENT => write!(
                    f,
                    "there is no directory {path:?} in the sandbox; make it first or name another"
                ),
                Errno::NOTDIR => write!(f, "{path:?} is not a directory; name one"),
                Errno::ACCESS => {
                    write!(f, "this user may not enter {path:?}; name another directory or user")
                }
                errno => write!(f, "the directory {path:?} could not be entered: {errno}"),
            },
            Self::Identity { step, errno } => {
                write!(
                    f,
                    "the user could not be taken on ({step}: {}); run as the image's own user",
                    known(*errno)
                )
            }
            Self::Session { step, errno } => {
                write!(f, "the program's session could not be made ({step}: {})", known(*errno))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_program_is_127() {
        let missing = Refusal::Program { name: "x".into(), errno: Errno::NOENT.raw_os_error() };
        assert_eq!(missing.exit_code(), 127);
        let denied = Refusal::Program { name: "x".into(), errno: Errno::ACCESS.raw_os_error() };
        assert_eq!(denied.exit_code(), 126);
        let nowhere = Refusal::Directory { path: "/x".into(), errno: Errno::NOENT.raw_os_error() };
        assert_eq!(nowhere.exit_code(), 126);
    }

    #[test]
    fn it_travels_as_text() {
        let refusal = Refusal::Identity { step: "setgroups".into(), errno: 1 };
        let text = serde_json::to_string(&refusal).unwrap();
        assert_eq!(serde_json::from_str::<Refusal>(&text).unwrap(), refusal);
    }
}

# How setup talks: one line for each thing, what and why, before it is done.
# shellcheck shell=bash

say()  { printf '%s\n' "setup: $*"; }
warn() { printf '%s\n' "setup: warning: $*" >&2; }
die()  { printf '%s\n' "setup: error: $*" >&2; exit 1; }

have() { command -v "$1" >/dev/null 2>&1; }

# Root does it itself; anybody else needs sudo, and hears so before a password prompt appears.
as_root() {
    if [[ $EUID -eq 0 ]]; then
        "$@"
    elif have sudo; then
        sudo -- "$@"
    else
        die "'$*' needs root: run this script as root, or install sudo"
    fi
}

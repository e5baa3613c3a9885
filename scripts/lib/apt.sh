# Debian packages, without questions.
# shellcheck shell=bash

# apt_install WHY PACKAGE...: installs what is missing of the packages, and says so first.
apt_install() {
    local why=$1 package log
    local -a missing=()
    shift
    for package in "$@"; do
        apt_installed "$package" || missing+=("$package")
    done
    [[ ${#missing[@]} -gt 0 ]] || return 0
    have apt-get || die "this machine has no apt-get; install by hand (Debian's names): ${missing[*]} ($why)"

    say "installing Debian packages: ${missing[*]} ($why)"
    apt_refresh
    # Without recommends: docker.io alone would drag in criu, perl modules and needrestart, which asks questions.
    log=$(mktemp)
    if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
        -o DPkg::Lock::Timeout=300 "${missing[@]}" >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        die "installing ${missing[*]} failed; the whole output is in $log"
    fi
    rm -f "$log"
    # The shell remembers where programs were, also those that were nowhere.
    hash -r
}

apt_installed() {
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

# Once per run: a fresh machine or image has no package lists at all.
apt_refreshed=no
apt_refresh() {
    [[ $apt_refreshed == no ]] || return 0
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    apt_refreshed=yes
}

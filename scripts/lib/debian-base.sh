# Makes debian:bookworm-slim without an image registry, from the same packages, as near to the published image as matters here.
# shellcheck shell=bash

debian_base() {
    local tag=$1 work mirror log
    apt_install "makes the Debian base image" debootstrap debian-archive-keyring
    apt_refresh
    # Not under /tmp: it may be a tmpfs on which no device nodes can be made.
    work=$(as_root mktemp -d /var/tmp/wolfpack-base.XXXXXX)
    # shellcheck disable=SC2064 # the folder's name is known now and gone later
    trap "as_root rm -rf '$work'" EXIT

    mirror=$(debian_repositories | awk '$2 == "bookworm" && $3 == "main" && !seen++ { print $1 }')
    log=$(mktemp)
    if ! as_root debootstrap --variant=minbase bookworm "$work" ${mirror:+"$mirror"} >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        die "debootstrap failed; the whole output is in $log"
    fi
    rm -f "$log"

    debian_sources "$work"
    debian_slim "$work"
    as_root tar -C "$work" --numeric-owner --one-file-system -c . \
        | docker import --change 'CMD ["bash"]' - "$tag" >/dev/null
    as_root rm -rf "$work"
    trap - EXIT
}

# Where this machine gets Debian from is where its images get it from: it may be the only place that answers.
# Each line: address, suite, component. Nothing on a machine that is not Debian 12; debootstrap then knows its own default.
debian_repositories() {
    # shellcheck disable=SC2016 # apt expands these
    apt-get indextargets --format '$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' \
        | awk '$1 == "Debian" && $3 ~ /^bookworm/ { print $2, $3, $4 }' | sort -u
}

debian_sources() {
    local tree=$1 sources
    sources=$(debian_repositories | sed 's/^/deb /')
    # debootstrap wrote a list of its own, which lacks the security updates; it stays where we know no better.
    [[ -z $sources ]] || as_root tee "$tree/etc/apt/sources.list" >/dev/null <<<"$sources"
    # A mirror that is a snapshot has its dates in the past; a machine told to accept them must say so inside too.
    apt-config dump | { grep -E '^Acquire::Check-(Valid-Until|Date) ' || true; } \
        | as_root tee "$tree/etc/apt/apt.conf.d/host-dates" >/dev/null
}

# What the published image does as well: no manuals, no services started by packages, no caches kept.
debian_slim() {
    local tree=$1
    as_root tee "$tree/etc/dpkg/dpkg.cfg.d/slim" >/dev/null <<'CONF'
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/groff/*
path-exclude /usr/share/info/*
path-exclude /usr/share/lintian/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
CONF
    as_root tee "$tree/etc/apt/apt.conf.d/slim" >/dev/null <<'CONF'
Acquire::Languages "none";
Acquire::GzipIndexes "true";
Apt::AutoRemove::SuggestsImportant "false";
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin || true"; };
CONF
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$tree/usr/sbin/policy-rc.d" >/dev/null
    as_root chmod 755 "$tree/usr/sbin/policy-rc.d"

    as_root find "$tree/usr/share/doc" -type f ! -name copyright -delete
    as_root rm -rf "$tree"/usr/share/{groff,info,lintian,locale,man} \
        "$tree"/var/lib/apt/lists "$tree"/var/cache/apt/archives "$tree"/var/cache/apt/*.bin \
        "$tree"/var/log/bootstrap.log "$tree"/etc/{hostname,resolv.conf}
    as_root mkdir -p "$tree"/var/{lib/apt/lists,cache/apt/archives}/partial
}

# What the benchmark of the tunnel compares with and measures by, each installed by its name.
# shellcheck shell=bash

readonly rathole_version=0.5.0

# setup_peers REPO
setup_peers() {
    local repo=$1
    apt_install "measure tunnels, and one of the peers" iperf3 wrk openssh-server openssh-client
    if [[ ! -x $repo/.tools/rathole/bin/rathole ]]; then
        say "installing into .tools: rathole $rathole_version (a peer of the tunnel's benchmark)"
        CARGO_TARGET_DIR=${TMPDIR:-/tmp}/rathole-build.$EUID cargo install --quiet rathole \
            --version "$rathole_version" --root "$repo/.tools/rathole"
    fi
}

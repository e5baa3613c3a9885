# The test of scripts/install-wolf, by the Docker route: a fleet of its own on this machine, and a second wolf that joins it
# as one on another machine would. Wants WOLFPACK_TEST_BINARIES and WOLFPACK_SANDBOX_AGENT, and the images.
# shellcheck shell=bash

# shellcheck source=/dev/null
source "$(dirname -- "${BASH_SOURCE[0]}")/install-systemd.sh"

install_test() {
    local repo=$1 folder=$2 wolfpack=$WOLFPACK_TEST_BINARIES/wolfpack name=wolfpack-install-$$ bridge server
    # shellcheck source=/dev/null
    source "$repo/scripts/lib/dev.sh"
    # From the link: an engine that has just made its bridge does not tell the gateway.
    bridge=$(docker network inspect --format '{{index .Options "com.docker.network.bridge.name"}}' bridge)
    bridge=$(ip -4 -o address show dev "$bridge" | sed -n 's#.* inet \([0-9.]*\)/.*#\1#p')
    [[ -n $bridge ]] || { printf 'the engine has no bridge\n' >&2; return 1; }
    # shellcheck disable=SC2064 # the names of now
    trap "install_test_end '$repo' '$name' '$folder'" RETURN EXIT
    # Its ports are on the engine's bridge: what a container reaches, and nobody beyond this machine.
    dev_start "$wolfpack" "$WOLFPACK_SANDBOX_AGENT" "$folder" --ephemeral --wolf engine \
        --tls "$bridge:0" --agents "$bridge:0" --host "$bridge" || return 1
    server=https://$bridge:$(dev_ready "$folder" server_tls | sed 's/.*://')

    "$wolfpack" join-token create -o json | install_test_field token >"$folder/token"
    "$repo/scripts/install-wolf" --server "$server" --token-file "$folder/token" --name "$name" \
        --display-name installed --label role=installed | tee "$folder/install.log" || return 1
    install_test_quick "$folder/install.log" || return 1
    "$wolfpack" image push wolfpack/sandbox-base:latest --wolf installed >/dev/null || return 1
    local sandbox began after
    sandbox=$("$wolfpack" sandbox create --name installed --wolf-label role=installed -o json | install_test_field name)
    [[ -n $sandbox ]] || return 1
    began=$(install_test_container "$name")

    # The same agent in another file: what counts is which file runs.
    "$repo/scripts/install-wolf" --name "$name" --upgrade "$WOLFPACK_TEST_BINARIES/wolfpack-wolf-agent" || return 1
    install_test_until "the new agent runs" install_test_upgraded "$name" || return 1
    install_test_until "the sandbox answers" install_test_says "$wolfpack" "$sandbox" || return 1
    after=$(install_test_container "$name")
    [[ -n $began && $began == "$after" ]] || { printf 'the upgrade stopped a sandbox: %s, then %s\n' "$began" "$after" >&2; return 1; }

    "$repo/scripts/install-wolf" --name "$name" --uninstall || return 1
    if [[ -n $(docker ps --all --quiet --filter "name=$name"; docker volume ls --quiet --filter "name=$name") ]]; then
        printf 'the uninstall left something of %s\n' "$name" >&2
        return 1
    fi
    printf 'install-wolf: joined, upgraded under a running sandbox, uninstalled: ok\n'
    if [[ $EUID -ne 0 ]]; then
        [[ ${CI:-} != true ]] || { printf 'the systemd route wants root\n' >&2; return 1; }
        printf 'NOT RUN: install-wolf --systemd wants root\n'
        return 0
    fi
    install_systemd "$repo" "$folder/systemd" "$name" "$server"
}

# install_test_quick LOG: the time from the start to the first heartbeat and ONLINE, as install-wolf told it. About a second,
# an engine's start included; the bound is for a machine that is busy.
install_test_quick() {
    local took
    took=$(sed -n 's/.*the wolf is online after \([0-9]*\) ms.*/\1/p' "$1")
    [[ -n $took && $took -lt 15000 ]] || { printf 'online after %s ms\n' "${took:-?}" >&2; return 1; }
}

install_test_end() {
    trap - RETURN EXIT
    "$1/scripts/install-wolf" --name "$2" --uninstall >/dev/null 2>&1
    install_systemd_end "$1" "$3/systemd" "$2-service"
    dev_stop
}

install_test_field() {
    python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"
}

# The container of the wolf's only sandbox, and since when it runs.
install_test_container() {
    # shellcheck disable=SC2016 # the wolf's shell expands it
    docker exec "$1" sh -c 'docker inspect --format "{{.Id}} {{.State.StartedAt}}" $(docker ps --quiet)'
}

install_test_upgraded() {
    docker exec "$1" sh -c 'ls -l /proc/[0-9]*/exe' 2>/dev/null | grep -q '/var/lib/wolfpack-wolf/bin/wolfpack-wolf-agent$'
}

install_test_says() {
    [[ $("$1" sandbox exec "$2" -- echo here 2>/dev/null) == here ]]
}

install_test_until() {
    local what=$1 began=$SECONDS
    shift
    until "$@"; do
        ((SECONDS < began + 60)) || { printf '%s: not within 60 s\n' "$what" >&2; return 1; }
        sleep 0.3
    done
}

# The test of scripts/install-wolf by the systemd route. On a machine that systemd does not run, two stand-ins do what the
# test needs of it: they start what the unit says, with its capabilities and no others, and keep what it prints. The rest of
# the unit's confinement is then only checked for being understood (systemd-analyze, where it is there).
# Wants WOLFPACK_TEST_BINARIES, WOLFPACK_SANDBOX_AGENT, and the environment of a fleet.
# shellcheck shell=bash

# install_systemd REPO FOLDER NAME SERVER: in a fleet that runs.
install_systemd() {
    local repo=$1 folder=$2 name=$3-service server=$4 wolfpack=$WOLFPACK_TEST_BINARIES/wolfpack sandbox wolf
    mkdir -p "$folder/bin" "$folder/programs"
    cp "$WOLFPACK_TEST_BINARIES/wolfpack-wolf-agent" "$folder/programs/"
    cp "$WOLFPACK_SANDBOX_AGENT" "$folder/programs/wolfpack-sandbox-agent"
    if [[ ! -d /run/systemd/system ]]; then
        printf 'NOT SHOWN: the confinement of the unit: systemd does not run this machine; a stand-in starts what the unit says\n'
        install_systemd_stand_ins "$folder"
    fi
    "$wolfpack" join-token create -o json | install_test_field token >"$folder/service.token"
    install_systemd_run "$folder" "$repo/scripts/install-wolf" --systemd --server "$server" --token-file "$folder/service.token" \
        --name "$name" --display-name "$name" --label role=service --binaries "$folder/programs" | tee "$folder/install.log" || return 1
    install_test_quick "$folder/install.log" || return 1
    if command -v systemd-analyze >/dev/null; then
        ! systemd-analyze verify "/etc/systemd/system/$name.service" 2>&1 | grep "$name.service" || return 1
    fi
    sandbox=$("$wolfpack" sandbox create --name "$name" --wolf-label role=service -o json | install_test_field name)
    [[ -n $sandbox ]] || return 1
    wolf=$(sed -n 's/.*"wolf": *"\([a-z0-9-]*\)".*/\1/p' "/var/lib/$name"/wolf.json "/var/lib/$name"/*/wolf.json 2>/dev/null | head -n 1)
    [[ -n $wolf && -n $(docker ps --quiet --filter "label=wolfpack.wolf=$wolf") ]] \
        || { printf 'no sandbox of %s on this engine\n' "$wolf" >&2; return 1; }
    [[ $(install_systemd_rules "$wolf") -gt 0 ]] || { printf 'the wolf has no packet filter\n' >&2; return 1; }

    install_systemd_run "$folder" "$repo/scripts/install-wolf" --systemd --name "$name" \
        --upgrade "$WOLFPACK_TEST_BINARIES/wolfpack-wolf-agent" || return 1
    install_test_until "the sandbox answers the new agent" install_test_says "$wolfpack" "$sandbox" || return 1

    install_systemd_run "$folder" "$repo/scripts/install-wolf" --systemd --name "$name" --uninstall || return 1
    local left
    left=$(
        docker ps --all --quiet --filter "label=wolfpack.wolf=$wolf"
        docker volume ls --quiet --filter "label=wolfpack.wolf=$wolf"
        docker network ls --quiet --filter "label=wolfpack.wolf=$wolf"
        ls -d "/etc/systemd/system/$name.service" "/etc/$name" "/var/lib/$name" "/usr/local/lib/$name" 2>/dev/null
        pgrep -f "/usr/local/lib/$name/"
        [[ $(install_systemd_rules "$wolf") == 0 ]] || printf 'rules'
    )
    [[ -z $left ]] || { printf 'the uninstall left: %s\n' "$left" >&2; return 1; }
    printf 'install-wolf --systemd: joined, upgraded under a running sandbox, uninstalled: ok\n'
}

install_systemd_run() {
    local folder=$1
    shift
    PATH=$folder/bin:$PATH "$@"
}

# However the test ended, the service and its sandboxes go.
install_systemd_end() {
    [[ -e /etc/systemd/system/$3.service ]] || return 0
    install_systemd_run "$2" "$1/scripts/install-wolf" --systemd --name "$3" --uninstall >/dev/null 2>&1
}

# How many rules of the packet filter name this wolf, whose networks' names end with the end of its id.
install_systemd_rules() {
    { iptables-save; iptables-legacy-save; } 2>/dev/null | grep -c "wolfpack.*${1: -12}" || true
}

# What systemctl and journalctl do for install-wolf.
install_systemd_stand_ins() {
    cat >"$1/bin/systemctl" <<STAND_IN
#!/usr/bin/env bash
# Stands in for systemd in a test: starts what a unit says, with its capabilities.
set -euo pipefail
state=$1
STAND_IN
    cat >>"$1/bin/systemctl" <<'STAND_IN'
unit() { sed -n "s/^$2=//p" "/etc/systemd/system/$1"; }
start() {
    local name=$1 capabilities
    capabilities=$(unit "$name" CapabilityBoundingSet | tr 'A-Z' 'a-z' | sed 's/cap_/+/g; s/ /,/g')
    mkdir -m "$(unit "$name" StateDirectoryMode)" -p "/var/lib/$(unit "$name" StateDirectory)"
    # shellcheck disable=SC2046 # words
    setsid setpriv --no-new-privs --bounding-set "-all,$capabilities" --inh-caps=-all -- $(unit "$name" ExecStart) \
        >>"$state/$name.log" 2>&1 </dev/null &
    printf '%s' "$!" >"$state/$name.pid"
}
stop() {
    local pid
    pid=$(cat "$state/$1.pid" 2>/dev/null) || return 0
    rm -f "$state/$1.pid"
    kill -TERM "$pid" 2>/dev/null || return 0
    for ((i = 0; i < 600; i++)); do
        # One that nobody reaps has ended, too.
        [[ $(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null) == [^Z]* ]] || return 0
        sleep 0.1
    done
    kill -KILL "$pid"
}
case $1 in
    is-system-running) echo running ;;
    daemon-reload) ;;
    enable) start "$3" ;;
    restart) stop "$2"; start "$2" ;;
    disable) stop "$3" ;;
    *) echo "systemctl: $*: not stood in for" >&2; exit 1 ;;
esac
STAND_IN
    # journalctl --unit NAME ...: all it printed.
    printf '#!/bin/sh\ncat "%s/$2.service.log"\n' "$1" >"$1/bin/journalctl"
    chmod 755 "$1/bin/systemctl" "$1/bin/journalctl"
}

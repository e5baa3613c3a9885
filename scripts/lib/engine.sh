# A Docker engine that answers: the one already there, else Debian's.
# shellcheck shell=bash

setup_engine() {
    if engine_answers; then
        engine_report
        return
    fi
    # Somebody pointed us at an engine of theirs: a second one here would only hide that it is away.
    [[ -z ${DOCKER_HOST:-} ]] || die "DOCKER_HOST is set to $DOCKER_HOST, but no engine answers there"

    engine_install
    engine_answers_root || engine_start
    engine_answers || die "the engine runs, but $(id -un) may not use it:" \
        "run 'sudo usermod -aG docker $(id -un)', then log in again"
    engine_report
}

engine_answers() {
    have docker && timeout 15 docker info >/dev/null 2>&1
}

engine_answers_root() {
    as_root timeout 15 docker info >/dev/null 2>&1
}

engine_report() {
    say "engine: $(docker info --format \
        '{{.ServerVersion}}, storage {{.Driver}}, cgroup v{{.CgroupVersion}} by {{.CgroupDriver}}')"
}

# docker-ce and docker.io fight over the same files, so a dockerd that is there is never joined by another.
engine_install() {
    local -a packages=(docker.io iptables)
    if [[ $(cat /sys/module/apparmor/parameters/enabled 2>/dev/null) == Y ]]; then
        # Where the kernel has AppArmor the engine starts no container without its parser, which docker.io only recommends.
        packages+=(apparmor)
    fi
    have dockerd || apt_install "the engine that runs wolves and sandboxes" "${packages[@]}"
    # Newer Debians ship the command line apart.
    have docker || apt_install "the command line of the engine" docker-cli
}

engine_start() {
    if [[ -d /run/systemd/system ]]; then
        say "starting the docker service (it does not answer)"
        if ! as_root systemctl start docker || ! engine_wait; then
            die "the docker service does not start; see: journalctl -u docker"
        fi
    else
        engine_start_detached /var/log/dockerd.log
    fi
}

# Without systemd nothing keeps a daemon for us: it gets a session of its own, so that it outlives this script and its terminal.
engine_start_detached() {
    local log=$1
    engine_prepare_cgroups
    engine_prepare_iptables
    engine_forget_stale_pid

    say "starting dockerd in the background, log in $log (there is no systemd to do it)"
    # The soft limit of open files is often 1,024 and containers inherit it: take all we may.
    # shellcheck disable=SC2016 # the inner shell expands it
    as_root bash -c 'ulimit -Sn "$(ulimit -Hn)"; exec setsid dockerd >>"$1" 2>&1 </dev/null &' dockerd "$log"

    engine_wait && return
    printf '%s\n' "--- the end of $log ---" >&2
    as_root tail -n 20 "$log" >&2 || true
    die "dockerd does not answer; the end of its log is above"
}

# Bounded: a daemon that cannot start must not hang whoever waits for this script.
engine_wait() {
    local began=$SECONDS
    while ((SECONDS < began + 60)); do
        engine_answers_root && return
        # It had time to appear: one that is gone has ended, and will not answer any more.
        ((SECONDS < began + 3)) || grep -qsx dockerd /proc/[0-9]*/comm || return 1
        sleep 0.2
    done
    return 1
}

# A machine that lost its power leaves the pid file behind; if that number is now another program's, dockerd takes it for itself.
engine_forget_stale_pid() {
    local file=/run/docker.pid pid
    pid=$(cat "$file" 2>/dev/null) || return 0
    [[ $(cat "/proc/$pid/comm" 2>/dev/null) == dockerd ]] || as_root rm -f "$file"
}

# A bare virtual machine or container may boot with no cgroups mounted; dockerd wants the v2 tree or the v1 controllers.
# A tree that somebody has arranged is left as it is.
engine_prepare_cgroups() {
    local tree=/sys/fs/cgroup controller
    awk '$3 ~ /^cgroup2?$/ { found = 1 } END { exit !found }' /proc/mounts && return
    say "mounting the cgroup controllers under $tree (dockerd needs them, nobody did it at boot)"
    mountpoint -q "$tree" || as_root mount -t tmpfs -o mode=755 cgroup "$tree"
    # Columns of /proc/cgroups: name, hierarchy, number of groups, enabled.
    while read -r controller; do
        as_root mkdir -p "$tree/$controller"
        # One that v2 holds cannot be mounted as v1; the engine lives without it and says so in `docker info`.
        as_root mount -t cgroup -o "$controller" cgroup "$tree/$controller" 2>/dev/null \
            || as_root rmdir "$tree/$controller"
    done < <(awk '!/^#/ && $4 == 1 { print $1 }' /proc/cgroups)
}

# Debian's iptables speaks nftables; some kernels have only the older tables, and dockerd then dies while making its bridge.
engine_prepare_iptables() {
    as_root iptables -w -t nat -S >/dev/null 2>&1 && return 0
    if as_root iptables-legacy -w -t nat -S >/dev/null 2>&1; then
        say "switching iptables to the legacy tables (this kernel refuses the nftables ones)"
        as_root update-alternatives --set iptables /usr/sbin/iptables-legacy >/dev/null
        as_root update-alternatives --set ip6tables /usr/sbin/ip6tables-legacy >/dev/null
    else
        warn "neither kind of iptables works on this kernel; dockerd will likely not start"
    fi
}

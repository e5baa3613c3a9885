# Docker Compose: the one that is there, 1.29 or v2, else Debian's.
# shellcheck shell=bash

setup_compose() {
    compose_there || apt_install "starts the services and a wolf as containers" docker-compose
    compose_there || die "docker-compose is installed, but does not run"
}

compose_there() {
    { have docker-compose && docker-compose version >/dev/null 2>&1; } || docker compose version >/dev/null 2>&1
}

# compose_secrets STATE DOMAIN NAME...: makes once what the containers are given: who owns it, the database's password, the
# CA, a certificate for each service, good at the names, and for the gateway at those below the domain. All of it 0600 (keys) in a folder that only its owner can enter.
compose_secrets() {
    local state=$1 domain=$2 uid gid service
    shift 2
    if [[ ! -d $state ]]; then
        say "making the secrets of the services, once, in $state"
        mkdir -p "$state"
        chmod 0700 "$state"
    fi
    # Containers run as whoever owns the secrets, so that nobody else needs to be able to read them; but never as root.
    uid=$(id -u) gid=$(id -g)
    [[ $uid -ne 0 ]] || uid=10001 gid=10001
    printf 'WOLFPACK_COMPOSE_STATE=%s\nWOLFPACK_UID=%s\nWOLFPACK_GID=%s\n' "$state" "$uid" "$gid" >"$state/compose.env"

    (
        umask 077
        mkdir -p "$state"/{postgres,registry,wolf}
        [[ -s $state/postgres/password ]] || compose_random >"$state/postgres/password"
        [[ -s $state/registry/pepper ]] || head -c 32 /dev/urandom >"$state/registry/pepper"
        for service in registry scheduler tunnel-broker sandbox-manager gateway; do
            mkdir -p "$state/$service-secrets"
        done
        for service in registry scheduler sandbox-manager; do
            printf 'postgres://wolfpack:%s@postgres:5432/wolfpack\n' "$(<"$state/postgres/password")" \
                >"$state/$service-secrets/database.url"
        done
    )
    [[ $EUID -ne 0 ]] || chown -R "$uid:$gid" "$state"/{postgres,registry,*-secrets}
    # The wolf's own processes begin as root of its container, and read the token there.
    chmod 0755 "$state/wolf"

    # Other names than last time, or ten months gone of their twelve: other certificates. What runs reads them again by itself.
    local names="$domain $*"
    if [[ ! -e $state/names || $(<"$state/names") != "$names" || -n $(find "$state/names" -mtime +300) ]]; then
        for service in registry scheduler tunnel-broker sandbox-manager; do
            compose_certificate "$state" "$uid:$gid" "$service" "$@"
        done
        compose_certificate "$state" "$uid:$gid" gateway "*.$domain" "$@"
        printf '%s' "$names" >"$state/names"
    fi
}

# By the registry's own command line, which holds the CA.
compose_certificate() {
    local state=$1 user=$2 service=$3 name
    shift 3
    local -a names=(--dns "$service" --dns localhost --dns wolfpack.internal --ip 127.0.0.1)
    for name in "$@"; do
        if [[ $name =~ ^[0-9.]+$|: ]]; then names+=(--ip "$name"); else names+=(--dns "$name"); fi
    done
    docker run --rm --network none --read-only --cap-drop ALL --security-opt no-new-privileges --user "$user" \
        --volume "$state/registry:/registry" --volume "$state/$service-secrets:/out" \
        "${WOLFPACK_CONTROL_PLANE_IMAGE:-wolfpack/control-plane:latest}" \
        wolfpack-registry issue --ca /registry/ca --service "$service" "${names[@]}" --out /out >/dev/null \
        || die "no certificate for $service; the words of the registry are above"
}

# compose_exposures FIRST-LAST NAME: says for compose.env which ports users may ask for, and where they reach them: by the
# name where all addresses of the machine have them.
# From 10000 on: below are the stack's own. Each port is a process of the engine.
compose_exposures() {
    local range=$1 host=${WOLFPACK_EXPOSURES_BIND:-127.0.0.1} port
    host=${host#[} host=${host%]}
    if [[ $host == 0.0.0.0 || $host == :: ]]; then
        [[ -n $2 ]] || die "--exposures on all addresses needs a --host, by which users reach them"
        host=$2
    fi
    [[ $range =~ ^([1-9][0-9]{4})-([1-9][0-9]{4})$ ]] || die "--exposures: '$range' is not FIRST-LAST, from 10000 to 65535"
    local first=${BASH_REMATCH[1]} last=${BASH_REMATCH[2]}
    ((first <= last && last <= 65535 && last - first < 200)) || die "--exposures: '$range' is not a range of at most 200 ports"
    for port in "${WOLFPACK_GATEWAY_PORT:-8443}" "${WOLFPACK_AGENT_PORT:-8444}"; do
        ((port < first || port > last)) || die "--exposures: $port is a port of the stack; give a range without it"
    done
    printf '%s\n' "WOLFPACK_EXPOSURES_FIRST=$first" "WOLFPACK_EXPOSURES_LAST=$last" "WOLFPACK_EXPOSURES_HOST=$host"
}

compose_random() {
    head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n'
}

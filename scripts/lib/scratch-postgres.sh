# A PostgreSQL of the tests' own: a cluster in a temporary folder, on a free loopback port, gone when the caller ends.
# shellcheck shell=bash

# scratch_postgres_start FOLDER: makes and starts a cluster there and sets WOLFPACK_TEST_POSTGRES to its URL.
scratch_postgres_start() {
    local folder=$1 port log
    scratch_postgres_bin=$(scratch_postgres_programs) || return 1
    log=$folder/postgres.log
    mkdir -p "$folder"
    # initdb refuses root, so the cluster belongs to the package's user.
    [[ $EUID -ne 0 ]] || chown postgres: "$folder"
    port=$(scratch_postgres_port)
    scratch_postgres_as "$scratch_postgres_bin/initdb" --pgdata="$folder/data" --username=wolfpack --auth=trust \
        --encoding=UTF8 --locale=C.UTF-8 >"$folder.initdb.log" 2>&1 \
        || { cat "$folder.initdb.log" >&2; return 1; }
    # Durable as in production: the tests kill processes and count what is left.
    scratch_postgres_as "$scratch_postgres_bin/pg_ctl" --pgdata="$folder/data" --log="$log" --wait --timeout=30 \
        --options="-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=300" \
        start >/dev/null || { tail -n 20 "$log" >&2; return 1; }
    scratch_postgres_folder=$folder
    export WOLFPACK_TEST_POSTGRES="postgres://wolfpack@127.0.0.1:$port/postgres"
}

scratch_postgres_stop() {
    [[ -n ${scratch_postgres_folder:-} ]] || return 0
    scratch_postgres_as "$scratch_postgres_bin/pg_ctl" --pgdata="$scratch_postgres_folder/data" --mode=immediate stop >/dev/null 2>&1 || true
    rm -rf "$scratch_postgres_folder" "$scratch_postgres_folder.initdb.log"
    scratch_postgres_folder=
}

# Debian keeps the programs out of PATH, in a folder for each version; the newest wins.
scratch_postgres_programs() {
    local folder
    for folder in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV) "$(dirname -- "$(command -v initdb || true)")"; do
        if [[ -x $folder/initdb && -x $folder/pg_ctl ]]; then
            printf '%s' "$folder"
            return
        fi
    done
    printf 'no PostgreSQL programs found; run scripts/setup postgres\n' >&2
    return 1
}

scratch_postgres_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

scratch_postgres_as() {
    if [[ $EUID -eq 0 ]]; then
        (cd / && setpriv --reuid=postgres --regid=postgres --init-groups -- "$@")
    else
        (cd / && "$@")
    fi
}

# A `wolfpack dev` of a script's own: started on free ports with its own data folder, and taken down with all it made.
# shellcheck shell=bash

# dev_start BINARY AGENT FOLDER: starts it and waits until it is ready; sets dev_pid, WOLFPACK_SERVER and WOLFPACK_API_KEY.
dev_start() {
    local binary=$1 agent=$2 folder=$3
    shift 3
    mkdir -p "$folder"
    rm -f "$folder/ready.json"
    # Its own configuration folder as well: a context the user has stays as it is. And a session of its own: a Ctrl-C is for
    # the script, which ends it once; a second signal would end it without its clean-up.
    XDG_CONFIG_HOME="$folder/config" setsid "$binary" dev --data "$folder/data" --ready-file "$folder/ready.json" \
        --sandbox-agent "$agent" "$@" >"$folder/dev.log" 2>&1 </dev/null &
    dev_pid=$!
    local began=$SECONDS
    until [[ -s $folder/ready.json ]]; do
        if ! kill -0 "$dev_pid" 2>/dev/null || ((SECONDS > began + 180)); then
            printf -- '--- the end of %s ---\n' "$folder/dev.log" >&2
            tail -n 40 "$folder/dev.log" >&2
            return 1
        fi
        sleep 0.05
    done
    WOLFPACK_SERVER=$(dev_ready "$folder" server)
    WOLFPACK_API_KEY=$(dev_ready "$folder" api_key)
    export WOLFPACK_SERVER WOLFPACK_API_KEY
}

# dev_ready FOLDER KEY: one fact of the ready file.
dev_ready() {
    python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$1/ready.json" "$2"
}

# Ends it as Ctrl-C would, and waits; says so if it had to be killed.
dev_stop() {
    [[ -n ${dev_pid:-} ]] || return 0
    local pid=$dev_pid waited=0
    dev_pid=
    kill -INT "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do
        if ((waited++ > 600)); then
            printf 'wolfpack dev did not stop within 60 s; killing it\n' >&2
            kill -KILL "$pid" 2>/dev/null || true
            break
        fi
        sleep 0.1
    done
    wait "$pid" 2>/dev/null
}

# The test of scripts/demo --once: it does the main job on the binaries that are built, and leaves a report, a picture and
# nothing else, also when it is ended half way. Wants WOLFPACK_TEST_BINARIES and WOLFPACK_SANDBOX_AGENT, and the images.
# shellcheck shell=bash

# demo_test REPO FOLDER
demo_test() {
    local repo=$1 folder=$2 code
    mkdir -p "$folder/bin" "$folder/tmp" || return 1
    # A copy in a folder of its own: what runs from there is this demo's, whatever else goes on on the machine.
    cp "$WOLFPACK_TEST_BINARIES/wolfpack" "$folder/bin/" || return 1

    demo_begin "$repo" "$folder" || return 1
    # The control: what is looked for at the end is found while it is there.
    demo_check "$repo" there "$folder" || { demo_end TERM; return 1; }
    wait "$demo_pid" && code=0 || code=$?
    ((code == 0)) || { printf 'the demo ended with %s\n' "$code" >&2; return 1; }
    demo_check "$repo" gone "$folder" || return 1
    demo_check "$repo" result "$folder/out" || return 1

    # Ended just when the container to compare with has been made and not yet been removed.
    demo_slow_docker "$folder" || return 1
    PATH=$folder/slow:$PATH demo_begin "$repo" "$folder" || return 1
    demo_until "the container to compare with" test -e "$folder/slow/ran" || { demo_end TERM; return 1; }
    docker container inspect "wolfpack-demo-$demo_pid" >/dev/null || { demo_end TERM; return 1; }
    : >"$folder/slow/seen"
    demo_end TERM && code=0 || code=$?
    ((code == 143)) || { printf 'the demo that was ended ended with %s, not 143\n' "$code" >&2; return 1; }
    demo_check "$repo" gone "$folder" || return 1
    printf 'demo --once: report, picture, nothing left, also when it is ended half way: ok\n'
}

# demo_begin REPO FOLDER: starts it and waits until its fleet is ready; sets demo_pid, keeps its ready file.
demo_begin() {
    rm -rf "$2/out" "$2/ready.json"
    TMPDIR=$2/tmp WOLFPACK_TEST_BINARIES=$2/bin "$1/scripts/demo" --once --out "$2/out" &
    demo_pid=$!
    demo_until "a fleet that is ready" demo_keep_ready "$2" || { demo_end TERM; return 1; }
}

demo_keep_ready() {
    local file
    for file in "$1"/tmp/wolfpack-demo.*/ready.json; do
        [[ -s $file ]] && cp "$file" "$1/ready.json"
    done
}

# demo_slow_docker FOLDER: a docker that takes its time to come back from a run.
demo_slow_docker() {
    mkdir -p "$1/slow"
    rm -f "$1/slow/ran" "$1/slow/seen"
    cat >"$1/slow/docker" <<SH || return 1
#!/bin/sh
"$(command -v docker)" "\$@"
code=\$?
[ "\$1" != run ] || : >"$1/slow/ran"
waited=0
while [ "\$1" = run ] && [ ! -e "$1/slow/seen" ] && [ "\$waited" -lt 60 ]; do sleep 1; waited=\$((waited + 1)); done
[ "\$1" != run ] || sleep 1
exit \$code
SH
    chmod 755 "$1/slow/docker"
}

# demo_end SIGNAL: ends it and answers its exit code.
demo_end() {
    kill -s "$1" "$demo_pid" 2>/dev/null
    wait "$demo_pid"
}

demo_check() {
    demo_pid=$demo_pid python3 "$1/scripts/lib/demo_check.py" "${@:2}"
}

demo_until() {
    local what=$1 began=$SECONDS
    shift
    until "$@" >/dev/null 2>&1; do
        kill -0 "$demo_pid" 2>/dev/null || { printf 'the demo ended before there was %s\n' "$what" >&2; return 1; }
        ((SECONDS < began + 240)) || { printf 'there is not %s within 240 s\n' "$what" >&2; return 1; }
        sleep 0.05
    done
}

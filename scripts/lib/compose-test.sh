# The test of the stack: on ports, volumes and networks of its own, so that a stack that runs beside it is left alone.
# Uses the functions of scripts/compose, and sets the stack they work on.
# shellcheck shell=bash disable=SC2034

compose_test() {
    # The tests have built them already, with other features of the crates they share.
    local target=${WOLFPACK_TEST_BINARIES:-${CARGO_TARGET_DIR:-$repo/target}/debug}
    "$repo/scripts/setup" build engine images tools compose
    "$repo/scripts/build-images" ${WOLFPACK_TEST_BINARIES:+--binaries "$WOLFPACK_TEST_BINARIES"} services wolf postgres
    have curl || apt_install "asks ports of sandboxes as a browser does" curl
    wolfpack=$target/wolfpack grpcurl=$repo/.tools/bin/grpcurl

    stack=wolfpack-test-$$
    state=$(mktemp -d -t wolfpack-compose.XXXXXX)
    # The folder itself is made by the stack, as a user's would be.
    rmdir "$state"
    trap 'compose_test_end' EXIT
    export WOLFPACK_BIND=127.0.0.1 WOLFPACK_EXPOSURES_BIND=127.0.0.1
    local exposed
    read -r WOLFPACK_GATEWAY_PORT WOLFPACK_AGENT_PORT exposed < <(compose_free_ports)
    export WOLFPACK_GATEWAY_PORT WOLFPACK_AGENT_PORT
    local began=$SECONDS

    # The images were built above.
    WOLFPACK_COMPOSE_BUILT=yes up --exposures "$exposed-$exposed"
    export WOLFPACK_SERVER=https://localhost:$WOLFPACK_GATEWAY_PORT WOLFPACK_CA=$state/gateway-secrets/ca.crt
    WOLFPACK_API_KEY=$(<"$state/registry/first.key")
    export WOLFPACK_API_KEY
    local wolf kept
    wolf=$(compose_wolf_name)
    say "$wolf is online after $((SECONDS - began)) s"

    compose_check_containers "$exposed"
    compose_load_image
    compose_main_job
    compose_exposure "$exposed"

    say "down, and up again"
    kept=$(compose_create kept)
    down
    [[ -z $(docker ps --all --quiet --filter "label=com.docker.compose.project=$stack") ]] || die "down left containers"
    WOLFPACK_COMPOSE_BUILT=yes up >/dev/null
    [[ $(compose_wolf_name) == "$wolf" ]] || die "the wolf came back as another one: $(compose_wolf_name), not $wolf"
    ! docker port "$(container tunnel-broker)" "$exposed" >/dev/null 2>&1 || die "port $exposed stayed without --exposures"
    kept=$(compose_sandbox "$kept") || die "$kept is forgotten"
    say "known: $kept"
    compose_main_job

    say "the control plane moves to other addresses while a sandbox runs"
    local running before after
    running=$(compose_create running)
    before=$(compose_addresses)
    compose_move
    docker rm --force --volumes "${placeholders[@]}" >/dev/null
    after=$(compose_addresses)
    [[ -z $(comm -12 <(sort <<<"$before") <(sort <<<"$after")) ]] || die "they did not move: $before, then $after"
    compose_until 60 "the sandbox answers again" compose_says "$running" "still here"
    wait_online 60
    compose_main_job
    "$wolfpack" sandbox delete "$running" >/dev/null

    say "taking all of it down"
    down --volumes
    compose_nothing_left
    trap - EXIT
    say "ok: joined, worked, kept its state over down and up, followed its control plane, left nothing ($((SECONDS - began)) s)"
}

# However the test ended, nothing of it stays.
compose_test_end() {
    local code=$?
    trap - EXIT
    ((code == 0)) || explain || true
    docker rm --force --volumes "${placeholders[@]}" >/dev/null 2>&1 || true
    down --volumes >/dev/null 2>&1 || true
    exit "$code"
}

compose_free_ports() {
    python3 -c '
import socket
held = [socket.socket() for _ in range(3)]
for s in held: s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in held))'
}

compose_wolf_name() {
    "$wolfpack" wolf list -o json | python3 -c 'import json, sys; print(*(wolf["name"] for wolf in json.load(sys.stdin)["wolves"]))'
}

# compose_check_containers EXPOSED: what the compose files promise, read from what runs: nobody is privileged, no host
# engine, only two ports and the one that users may ask for.
compose_check_containers() {
    # shellcheck disable=SC2046 # ids
    docker inspect $(docker ps --quiet --filter "label=com.docker.compose.project=$stack") | python3 -c '
import json, sys
containers = {c["Config"]["Labels"]["com.docker.compose.service"]: c for c in json.load(sys.stdin)}
assert len(containers) == 7, sorted(containers)
public = {}
for name, c in containers.items():
    host = c["HostConfig"]
    assert not host["Privileged"], name
    assert not any("docker.sock" in mount["Source"] for mount in c["Mounts"]), name
    ports = {port: at[0]["HostIp"] for port, at in (c["NetworkSettings"]["Ports"] or {}).items() if at}
    assert set(ports.values()) <= {"127.0.0.1"}, ports
    public.update({port: name for port in ports})
    if name == "wolf": continue
    assert host["ReadonlyRootfs"], name
    assert host["CapDrop"] == ["ALL"] and not host["CapAdd"], name
    assert "no-new-privileges:true" in host["SecurityOpt"], name
    assert c["Config"]["User"].split(":")[0] not in ("", "0", "root"), name
    assert host["Memory"] > 0 and host["PidsLimit"] > 0, name
assert public == {"8443/tcp": "gateway", "8444/tcp": "tunnel-broker", sys.argv[1] + "/tcp": "tunnel-broker"}, public' "$1"
    # Who has a public port has no way to the database.
    ! docker exec "$(container gateway)" wolfpack-gateway --health "$(docker inspect --format \
        '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$(container postgres)"):5432" 2>/dev/null \
        || die "the gateway reaches the database's network"
}

compose_load_image() {
    local image=wolfpack/sandbox-base:latest
    say "loading $image into the wolf"
    "$wolfpack" image push "$image" --all >"$state/push.log" 2>&1 || { tail -n 20 "$state/push.log" >&2; return 1; }
}

# compose_create NAME: a sandbox that runs; says its resource name.
compose_create() {
    "$wolfpack" sandbox create --name "$1" -o json | python3 -c 'import json, sys; print(json.load(sys.stdin)["name"])'
}

# compose_sandbox NAME: its resource name and its state.
compose_sandbox() {
    "$wolfpack" sandbox get "$1" -o json | python3 -c '
import json, sys
sandbox = json.load(sys.stdin)
print(sandbox["name"], sandbox["status"]["state"].removeprefix("SANDBOX_STATE_").lower())'
}

compose_says() {
    [[ $("$wolfpack" sandbox exec "$1" -- echo "$2") == "$2" ]]
}

# Through the public port only: by the command line, and by grpcurl, which knows nothing of us.
compose_main_job() {
    local sandbox names request
    sandbox=$(compose_create job)
    compose_says "$sandbox" "hello from inside" || die "$sandbox does not say hello"
    local sum code=0
    sum=$(printf 'to be summed' | "$wolfpack" sandbox exec -i "$sandbox" -- sha256sum)
    [[ $sum == "$(printf 'to be summed' | sha256sum)" ]] || die "exec gave $sum for another sum"
    "$wolfpack" sandbox exec "$sandbox" -- sh -c 'exit 7' || code=$?
    [[ $code -eq 7 ]] || die "exec gave $code for 7"
    compose_port_by_link "$sandbox"
    names=$(compose_grpcurl wolfpack.sandbox.v1.SandboxService/ListSandboxes '{}')
    [[ $names == *"\"$sandbox\""* ]] || die "grpcurl does not see $sandbox"
    "$wolfpack" sandbox delete "$sandbox" >/dev/null

    request=$(printf '{"request_id":"%s","sandbox":{"display_name":"by-grpcurl"}}' "$(cat /proc/sys/kernel/random/uuid)")
    sandbox=$(compose_grpcurl wolfpack.sandbox.v1.SandboxService/CreateSandbox "$request" \
        | python3 -c 'import json, sys; print(json.load(sys.stdin)["sandbox"]["name"])')
    compose_until 60 "$sandbox runs" compose_says "$sandbox" "made by grpcurl"
    compose_grpcurl wolfpack.sandbox.v1.SandboxService/DeleteSandbox "{\"name\":\"$sandbox\"}" >/dev/null
    say "main job done"
}

# compose_port_by_link SANDBOX: a browser's way to a program in it, below the domain of the stack, by the stack's certificate.
compose_port_by_link() {
    local link host
    compose_serve_port "$1"
    link=$("$wolfpack" sandbox link "$1" 8000)
    host=${link#https://} host=${host%%:*}
    [[ $host == *.box.localhost ]] || die "the link leads to $link"
    compose_until 10 "the link leads to the port" compose_link_says "$host" "$link" "from a port"
}

# compose_serve_port SANDBOX: something that answers at its port 8000.
compose_serve_port() {
    local server
    # shellcheck disable=SC2016 # perl's
    server='use IO::Socket; $l = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => 8000, Listen => 5) or die;
        while ($c = $l->accept) { while (<$c>) { last if /^\r/ } print $c "HTTP/1.0 200 OK\r\n\r\nfrom a port"; close $c }'
    "$wolfpack" sandbox exec "$1" -- sh -c 'perl -e "$1" >/dev/null 2>&1 &' sh "$server"
}

# compose_exposure PORT: a plain socket of this machine leads into a sandbox, at the address that its user was told.
compose_exposure() {
    local sandbox name address
    sandbox=$(compose_create exposed)
    compose_serve_port "$sandbox"
    read -r name address < <("$wolfpack" exposure create "sandbox/${sandbox#*/}" 8000 -o json \
        | python3 -c 'import json, sys; made = json.load(sys.stdin); print(made["name"], made["listenAddress"])')
    [[ $address == "127.0.0.1:$1" ]] || die "the exposure is at $address, not at 127.0.0.1:$1"
    compose_until 10 "the exposure leads to the port" compose_answers "http://$address/" "from a port"
    "$wolfpack" sandbox delete "$sandbox" >/dev/null
    compose_until 20 "nobody is let in to what is gone" compose_refuses "$name" "http://$address/"
    say "an exposure led into a sandbox, and no longer than it was there"
}

compose_answers() {
    [[ $(curl --silent --show-error --max-time 10 "$1") == "$2" ]]
}

# compose_refuses EXPOSURE URL: the broker itself turns whoever comes away.
compose_refuses() {
    ! curl --silent --max-time 10 "$2" || return 1
    "$wolfpack" exposure get "$1" -o json \
        | python3 -c 'import json, sys; sys.exit(json.load(sys.stdin).get("refusedConnections", "0") == "0")'
}

# By link it is a cookie that the second request brings.
compose_link_says() {
    local cookies=$state/cookies said
    said=$(curl --silent --show-error --max-time 10 --location --cookie "$cookies" --cookie-jar "$cookies" --cacert "$WOLFPACK_CA" \
        --resolve "$1:$WOLFPACK_GATEWAY_PORT:127.0.0.1" "$2")
    rm -f "$cookies"
    [[ $said == "$3" ]]
}

compose_grpcurl() {
    # The key in the environment, not among the arguments that everybody on the machine can list.
    "$grpcurl" -cacert "$WOLFPACK_CA" -expand-headers -H "authorization: Bearer \${WOLFPACK_API_KEY}" \
        -d "$2" "localhost:$WOLFPACK_GATEWAY_PORT" "$1"
}

compose_addresses() {
    local service
    for service in gateway tunnel-broker; do
        docker inspect --format "{{(index .NetworkSettings.Networks \"${stack}_edge\").IPAddress}}" "$(container "$service")"
    done
}

# Others take the old addresses while the new containers are made, so these get other ones.
placeholders=()
compose_move() {
    local _
    compose rm --force --stop gateway tunnel-broker >"$state/move.log" 2>&1
    for _ in {1..4}; do
        placeholders+=("$(docker run --detach --network "${stack}_edge" wolfpack/sandbox-base:latest)")
    done
    start_services
}

# compose_until SECONDS WHAT COMMAND...
compose_until() {
    local limit=$1 what=$2 began=$SECONDS
    shift 2
    until "$@" 2>/dev/null; do
        ((SECONDS < began + limit)) || { "$@" || true; die "$what: not within $limit s"; }
        sleep 0.3
    done
}

compose_nothing_left() {
    local left
    left=$(
        docker ps --all --quiet --filter "label=com.docker.compose.project=$stack"
        docker volume ls --quiet --filter "label=com.docker.compose.project=$stack"
        docker network ls --quiet --filter "label=com.docker.compose.project=$stack"
    )
    [[ -z $left && ! -e $state ]] || die "left behind: $left $(ls -d "$state" 2>/dev/null)"
}

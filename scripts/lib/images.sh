# The sandbox images, and the Debian base they stand on.
# shellcheck shell=bash

base_image=debian:bookworm-slim

# setup_images REPO
setup_images() {
    local folder=$1/images
    engine_answers || setup_engine
    images_base
    images_build "$folder/sandbox-base" "$base_image"
    images_build "$folder/sandbox-desktop" wolfpack/sandbox-base:latest
}

# The base comes from a registry where one can be reached, and is made from Debian's packages where none can.
images_base() {
    image_exists "$base_image" && return 0
    say "fetching the image $base_image (all sandbox images stand on it)"
    image_pull "$base_image" && return 0
    say "no registry answers: making $base_image from Debian's packages instead"
    debian_base "$base_image"
}

# images_build FOLDER PARENT [NAME [BUILD_ARGUMENT...]]: builds the folder as wolfpack/NAME:latest (its own name unless
# another is said), unless one of the same making is there.
images_build() {
    local folder=$1 parent=$2 name=${3:-}
    name=${name:-$(basename -- "$folder")}
    local tag=wolfpack/$name:latest making proxy value argument log old
    making=$(image_making "$folder" "$parent" "${@:4}")
    [[ $(image_label "$tag" dev.wolfpack.making) == "$making" ]] && return 0

    local -a arguments=(--network host --label "dev.wolfpack.making=$making" --tag "$tag")
    for argument in "${@:4}"; do
        arguments+=(--build-arg "$argument")
    done
    for proxy in http_proxy https_proxy no_proxy; do
        # Docker knows these names: they are set while it builds and leave no trace in the image.
        value=$(image_proxy "$proxy")
        [[ -z $value ]] || arguments+=(--build-arg "$proxy=$value")
    done

    local replaced
    replaced=$(docker image inspect --format '{{.Id}}' "$tag" 2>/dev/null || true)
    say "building the image $tag (it is not there, or what it is made of has changed)"
    log=$(mktemp)
    # A builder the user chose may keep its results to itself; the engine's own puts them among its images.
    if ! BUILDX_BUILDER=default docker build "${arguments[@]}" "$folder" >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        die "building $tag failed; the whole output is in $log"
    fi
    rm -f "$log"
    # What nobody names any more: the image that this one replaces, and the stages that were only on the way to it.
    # One that a container still stands on stays.
    for old in "$replaced" $(docker image ls --quiet --filter dangling=true --filter label=dev.wolfpack.stage); do
        [[ -z $old ]] || docker image rm "$old" >/dev/null 2>&1 || true
    done
}

# A name for everything an image is made of: the files of its folder, their modes, its arguments, and the image below.
image_making() {
    local folder=$1 parent=$2
    {
        docker image inspect --format '{{.Id}}' "$parent"
        shift 2
        printf '%s\n' "$@"
        cd "$folder" || exit
        find . -type f ! -name '*.md' -printf '%p %m\n' | LC_ALL=C sort
        find . -type f ! -name '*.md' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
    } | sha256sum | cut -c1-32
}

# The proxy the environment names, else the one apt was given on this machine.
image_proxy() {
    local name=$1 upper=${1^^}
    local proxy=${!name:-${!upper:-}}
    if [[ -z $proxy && $name != no_proxy ]] && have apt-config; then
        eval "$(apt-config shell proxy "Acquire::${name%_proxy}::Proxy")"
        # apt also takes words here, such as DIRECT.
        [[ $proxy == *://* ]] || proxy=
    fi
    printf '%s' "$proxy"
}

image_exists() {
    docker image inspect "$1" >/dev/null 2>&1
}

image_label() {
    docker image inspect --format "{{ index .Config.Labels \"$2\" }}" "$1" 2>/dev/null || true
}

# The engine's first line says that the registry spoke, so one that stays silent is found out in seconds, not in minutes.
image_pull() {
    local line progress pid status=1
    exec {progress}< <(exec docker pull "$1" 2>&1)
    pid=$!
    if IFS= read -r -t 8 -u "$progress" line && [[ $line == *"Pulling from"* ]]; then
        cat <&"$progress" >/dev/null
        wait "$pid" && status=0
    else
        kill "$pid" 2>/dev/null || true
    fi
    exec {progress}<&-
    return "$status"
}

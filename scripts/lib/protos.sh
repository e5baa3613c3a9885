# The .proto files of others that ours import, taken out of the crates that ship them, for buf. Cargo's build does not need them.
# shellcheck shell=bash

# setup_protos REPO
setup_protos() {
    local repo=$1 target=$1/.proto-deps versions
    versions=$(protos_versions "$repo" prost-protovalidate-types tonic-types)
    [[ -n $versions && $versions == $(cat "$target/versions" 2>/dev/null) ]] && return

    say "laying into .proto-deps the .proto files that buf needs, out of: $(paste -sd ' ' <<<"$versions")"
    local metadata validate rpc host
    host=$(rustc -vV | awk '$1 == "host:" { print $2 }')
    # For this machine only: else cargo fetches the crates of every platform just to name them.
    metadata=$(cd "$repo" && cargo metadata --locked --format-version 1 --filter-platform "$host") \
        || die "cargo cannot say where the crates are; its words are above"
    validate=$(protos_folder "$metadata" prost-protovalidate-types)
    rpc=$(protos_folder "$metadata" tonic-types)

    rm -rf "$target"
    mkdir -p "$target/buf/validate" "$target/google/rpc"
    cp "$validate/buf/validate/validate.proto" "$target/buf/validate/"
    # tonic-types keeps them without the folders by which the world imports them.
    cp "$rpc/status.proto" "$rpc/error_details.proto" "$target/google/rpc/"
    printf '%s\n' "$versions" >"$target/versions"
}

# "name version" for each of the crates, as locked.
protos_versions() {
    local repo=$1 crate
    shift
    for crate in "$@"; do
        awk -v crate="\"$crate\"" '$1 == "name" && $3 == crate { getline; gsub(/"/, "", crate); gsub(/"/, "", $3); print crate, $3 }' \
            "$repo/Cargo.lock"
    done
}

protos_folder() {
    local metadata=$1 crate=$2 manifest
    manifest=$(grep -oE "\"manifest_path\":\"[^\"]*/$crate-[0-9][^\"]*/Cargo.toml\"" <<<"$metadata" | head -n 1 | cut -d '"' -f 4)
    [[ -n $manifest ]] || die "the workspace does not depend on $crate"
    printf '%s/proto' "$(dirname -- "$manifest")"
}

# What the Rust workspace needs beside Rust itself: a C compiler and linker (for ring and the bundled SQLite), libc's files,
# and protoc for the one dependency whose build script calls it (prost-protovalidate-types; ours use protox).
# shellcheck shell=bash

setup_build() {
    # libc6-dev also holds the libc.a that the sandbox agent is linked with, to run in any image.
    if ! have cc || ! have ld || [[ -z $(compiler_static_libc) ]]; then
        apt_install "C parts of the Rust crates, and the linker" gcc libc6-dev binutils
    fi
    if ! compiler_protoc; then
        [[ -z ${PROTOC:-} ]] || die "PROTOC is $PROTOC, which does not find google/protobuf/descriptor.proto; unset it, or mend it"
        # The second holds google/protobuf/*.proto, which the first only recommends.
        apt_install "protoc, which the build of the validation rules' crate calls" protobuf-compiler libprotobuf-dev
        compiler_protoc || die "$(command -v protoc) does not find google/protobuf/descriptor.proto; set PROTOC to one that does"
    fi
    # Debian's own Rust is years behind, and which one a user wants to install by which way is theirs to say.
    have cargo || [[ -x ${CARGO_HOME:-$HOME/.cargo}/bin/cargo ]] \
        || warn "there is no cargo: install Rust by rustup; rust-toolchain.toml then picks the version"
}

# Whether there is a protoc, with the files that it should bring.
compiler_protoc() {
    local folder code=0
    have "${PROTOC:-protoc}" || return 1
    folder=$(mktemp -d)
    printf 'syntax = "proto3"; import "google/protobuf/descriptor.proto"; extend google.protobuf.FileOptions { bool b = 50000; }' \
        >"$folder/probe.proto"
    "${PROTOC:-protoc}" --proto_path="$folder" --descriptor_set_out="$folder/probe.bin" probe.proto 2>/dev/null || code=1
    rm -rf "$folder"
    return "$code"
}

compiler_static_libc() {
    local file
    file=$(cc -print-file-name=libc.a)
    [[ $file != /* ]] || printf '%s' "$file"
}

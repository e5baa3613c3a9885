# What the Rust workspace needs beside Rust itself: a C compiler and linker (for ring and the bundled SQLite), libc's files,
# and protoc for the one dependency whose build script calls it (prost-protovalidate-types; ours use protox).
# shellcheck shell=bash

setup_build() {
    # libc6-dev also holds the libc.a that the sandbox agent is linked with, to run in any image.
    if ! have cc || ! have ld || [[ -z $(compiler_static_libc) ]]; then
        apt_install "C parts of the Rust crates, and the linker" gcc libc6-dev binutils
    fi
    if [[ -z ${PROTOC:-} ]] && ! have protoc; then
        apt_install "protoc, which the build of the validation rules' crate calls" protobuf-compiler
    fi
    # Debian's own Rust is years behind, and which one a user wants to install by which way is theirs to say.
    have cargo || [[ -x ${CARGO_HOME:-$HOME/.cargo}/bin/cargo ]] \
        || warn "there is no cargo: install Rust by rustup; rust-toolchain.toml then picks the version"
}

compiler_static_libc() {
    local file
    file=$(cc -print-file-name=libc.a)
    [[ $file != /* ]] || printf '%s' "$file"
}

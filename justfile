# One line each over the scripts and cargo; `just` lists them.

_default:
    @just --list

# Install what building, testing and running needs.
setup *PARTS:
    ./scripts/setup {{PARTS}}

# Format the code.
fmt:
    cargo fmt --all

# All lints, as CI runs them.
lint:
    cargo clippy --workspace --all-targets -- -D warnings && .tools/bin/buf lint

# Licences, bans and advisories (cargo install cargo-deny first).
deny:
    cargo deny check

# The tests that need no engine.
fast:
    ./scripts/test fast

# All tests.
test:
    ./scripts/test

# Show it: a desktop sandbox on this machine.
demo *ARGS:
    ./scripts/demo {{ARGS}}

# A benchmark by name, such as create.
bench *ARGS:
    ./scripts/bench {{ARGS}}

# Build the images: wolf, services, sandbox-docker, postgres.
images *ARGS:
    ./scripts/build-images {{ARGS}}

# The stack of containers: up, down, test.
compose *ARGS:
    ./scripts/compose {{ARGS}}

# Generate the Python client into sdk/python/generated.
gen:
    ./scripts/gen

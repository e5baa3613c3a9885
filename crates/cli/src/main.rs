//! The `wolfpack` command.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    wolfpack_cli::run(std::env::args_os())
}

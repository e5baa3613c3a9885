//! Compiles `proto/` without protoc: protox parses, the imports that packages
//! ship come out of their descriptor sets, and two generators write Rust.

use std::path::{Path, PathBuf};

use prost::Message as _;
use protox::file::{
    ChainFileResolver, DescriptorSetFileResolver, GoogleFileResolver, IncludeFileResolver,
};

type AnyResult<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> AnyResult<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    collect(&root, &root, &mut files)?;
    files.sort();

    let mut resolver = ChainFileResolver::new();
    resolver.add(IncludeFileResolver::new(root));
    resolver.add(DescriptorSetFileResolver::new(
        prost_protovalidate_types::DESCRIPTOR_POOL.file_descriptor_protos().cloned().fold(
            prost_types::FileDescriptorSet::default(),
            |mut set, file| {
                set.file.push(file);
                set
            },
        ),
    ));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true);
    for file in &files {
        compiler.open_file(file)?;
    }

    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // These bytes keep custom options, which prost's own descriptor types drop.
    let bytes = compiler.encode_file_descriptor_set();
    std::fs::write(out.join("descriptor_set.bin"), &bytes)?;

    let mut set = prost_types::FileDescriptorSet::decode(bytes.as_slice())?;
    set.file.retain(|file| !file.package().starts_with("buf."));
    tonic_prost_build::configure()
        .bytes(".")
        .btree_map(".")
        .include_file("wolfpack.rs")
        .compile_fds(set)?;
    prost_protovalidate_build::Builder::new()
        .file_descriptor_set_bytes(bytes)
        .fail_on_runtime_only(false)
        .compile()?;
    Ok(())
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<String>) -> AnyResult<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path.strip_prefix(root)?.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

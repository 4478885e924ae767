//! Compiles the `.proto` files of `apis/` with protox, a compiler that is a library: no `protoc` has to be installed.

use std::error::Error;
use std::path::{Path, PathBuf};

/// The files with services, and what no service imports; the rest comes with them.
const FILES: [&str; 8] = [
    "build/bazel/remote/execution/v2/remote_execution.proto",
    "build/bazel/remote/asset/v1/remote_asset.proto",
    "google/bytestream/bytestream.proto",
    "google/rpc/error_details.proto",
    "cairn/v1/admin.proto",
    "cairn/v1/chunk_store.proto",
    "cairn/v1/events.proto",
    "cairn/v1/objects.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let apis = Path::new("apis");
    println!("cargo::rerun-if-changed=apis");
    let mut files = protox::compile(FILES.map(|file| apis.join(file)), [apis])?;
    let descriptors = PathBuf::from(std::env::var("OUT_DIR")?).join("descriptors.bin");
    std::fs::write(descriptors, prost::Message::encode_to_vec(&files))?;
    // Comments of others are no text of ours: they hold code blocks that rustdoc would compile.
    files.file.iter_mut().for_each(|file| file.source_code_info = None);
    tonic_prost_build::configure()
        // Blobs are not copied out of the buffer that they came in.
        .bytes(".")
        .build_transport(false)
        .codec_path("crate::codec::WholeCodec")
        .compile_fds(files)?;
    Ok(())
}

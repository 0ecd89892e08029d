//! Compiles `proto/` in pure Rust: Rust types for the code, a descriptor set for everything that reads messages by name.

use std::{env, fs, path::PathBuf};

const FILES: [&str; 7] = [
    "google/rpc/error_details.proto",
    "yandex/cloud/compute/v1/image_service.proto",
    "yandex/cloud/endpoint/api_endpoint_service.proto",
    "yandex/cloud/iam/v1/iam_token_service.proto",
    "yandex/cloud/operation/operation.proto",
    "yandex/cloud/operation/operation_service.proto",
    "google/cloud/compute/v1/compute.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    // Imports stay in the set: the JSON of an Any needs the descriptor of what is inside, `Empty` included. Comments stay
    // too: they are the descriptions of the OpenAPI document.
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    // Not by way of prost's types, which know no extensions and would drop the HTTP rules.
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    prost_build::Config::new()
        .enable_type_names()
        .type_name_domain(["."], "type.googleapis.com")
        // Sorted labels: the same message always has the same bytes and the same JSON.
        .btree_map(["."])
        .include_file("messages.rs")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

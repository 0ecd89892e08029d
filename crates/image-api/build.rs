//! Compiles `proto/` in pure Rust: Rust types for the code, a descriptor set for canonical JSON.

use std::{env, fs, path::PathBuf};

use protox::prost::Message as _;

const FILES: [&str; 4] = [
    "google/rpc/error_details.proto",
    "yandex/cloud/compute/v1/image_service.proto",
    "yandex/cloud/operation/operation.proto",
    "yandex/cloud/operation/operation_service.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    // Imports stay in the set: the JSON of an Any needs the descriptor of what is inside, `Empty` included.
    let descriptors =
        protox::Compiler::new(["proto"])?.include_imports(true).open_files(FILES)?.file_descriptor_set();
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    prost_build::Config::new()
        .enable_type_names()
        .type_name_domain(["."], "type.googleapis.com")
        // Sorted labels: the same message always has the same bytes and the same JSON.
        .btree_map(["."])
        .include_file("messages.rs")
        .compile_fds(descriptors)?;
    Ok(())
}

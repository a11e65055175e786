//! Writes `records/src/generated` from `records/proto`, without protoc:
//! protox compiles the `.proto`, buffa's code generator turns it into Rust.
//! The result is committed, so that a build of clickstream needs neither.
use prost::Message;

const PROTO: &str = "clickstream/v1/records.proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let out = std::env::args_os().nth(1).map_or_else(|| root.join("src/generated"), Into::into);
    std::fs::create_dir_all(&out)?;
    let set = protox::compile([PROTO], [root.join("proto")])?;
    let descriptors = std::env::temp_dir().join(format!("records-{}.binpb", std::process::id()));
    std::fs::write(&descriptors, set.encode_to_vec())?;
    let done = buffa_build::Config::new()
        .descriptor_set(&descriptors)
        .files(&[PROTO])
        .out_dir(out)
        .include_file("mod.rs")
        .generate_views(true)
        .generate_json(true)
        .preserve_unknown_fields(false)
        .compile();
    std::fs::remove_file(&descriptors)?;
    done
}

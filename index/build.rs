//! Says what to do when RocksDB is not there to be linked.
//!
//! Without these variables the crate librocksdb-sys would compile RocksDB file by file, for some twenty minutes; this script
//! is done before that begins, and its error ends the build.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for variable in ["ROCKSDB_LIB_DIR", "ROCKSDB_INCLUDE_DIR"] {
        println!("cargo::rerun-if-env-changed={variable}");
        if std::env::var_os(variable).is_none() {
            println!(
                "cargo::error={variable} is not set: use `make` (its commands set it), or run \
                 `tools/rocksdb build && eval \"$(tools/rocksdb env)\"` in the root of the repository and try again"
            );
        }
    }
}

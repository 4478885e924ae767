//! Messages and services of the gRPC door, made of the `.proto` files in `apis/` at build time.
//!
//! Modules are named as the packages are. `apis/README.md` says where the files of others come from. Not here: what any
//! of it means (`gateway/src/grpc`).

// Generated code is not ours to document, nor to lint.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]

pub mod codec;

/// All files as a `FileDescriptorSet`, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The Remote Execution API and what goes with it.
pub mod build {
    pub mod bazel {
        pub mod remote {
            pub mod asset {
                pub mod v1 {
                    tonic::include_proto!("build.bazel.remote.asset.v1");
                }
            }
            pub mod execution {
                pub mod v2 {
                    tonic::include_proto!("build.bazel.remote.execution.v2");
                }
            }
        }
        pub mod semver {
            tonic::include_proto!("build.bazel.semver");
        }
    }
}

/// Our own.
pub mod cairn {
    pub mod v1 {
        tonic::include_proto!("cairn.v1");
    }
}

/// Google's common ones.
pub mod google {
    pub mod api {
        tonic::include_proto!("google.api");
    }
    pub mod bytestream {
        tonic::include_proto!("google.bytestream");
    }
    pub mod longrunning {
        tonic::include_proto!("google.longrunning");
    }
    pub mod rpc {
        tonic::include_proto!("google.rpc");
    }
}

pub use build::bazel::remote::{asset::v1 as asset, execution::v2 as execution};

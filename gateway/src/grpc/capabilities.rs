//! What the server can, as every client asks first.

use std::sync::Arc;

use cairn_identity::Action;
use cairn_proto::build::bazel::semver::SemVer;
use cairn_proto::execution::capabilities_server;
use cairn_proto::execution::priority_capabilities::PriorityRange;
use cairn_proto::execution::symlink_absolute_path_strategy::Value as Symlinks;
use cairn_proto::execution::{
    ActionCacheUpdateCapabilities, CacheCapabilities, GetCapabilitiesRequest, PriorityCapabilities, ServerCapabilities,
    compressor,
};
use tonic::{Request, Response, Status};

use super::names::function_value;
use super::{Ask, Core, decide};

/// The API's version that is spoken: the oldest and the newest.
const VERSIONS: [(i32, i32); 2] = [(2, 0), (2, 13)];

#[derive(Clone, Debug)]
pub(super) struct Capabilities(pub(super) Arc<Core>);

#[tonic::async_trait]
impl capabilities_server::Capabilities for Capabilities {
    async fn get_capabilities(
        &self,
        request: Request<GetCapabilitiesRequest>,
    ) -> Result<Response<ServerCapabilities>, Status> {
        let ask = Ask::new(request.metadata(), &request.get_ref().instance_name, Action::GetBlob)?;
        let given = ask.given.clone();
        let update_enabled = self.0.admitted(ask, move |core, admitted| {
            let caller = core.caller(given.as_deref())?;
            Ok(decide(&caller, &admitted.bucket, Action::PutActionResult).is_ok())
        });
        let update_enabled = update_enabled.await?;
        let options = &self.0.options;
        let zstd = compressor::Value::Zstd as i32;
        let cache = CacheCapabilities {
            digest_functions: options
                .functions
                .iter()
                .map(|&function| function_value(function) as i32)
                .collect(),
            action_cache_update_capabilities: Some(ActionCacheUpdateCapabilities { update_enabled }),
            cache_priority_capabilities: Some(PriorityCapabilities {
                priorities: vec![PriorityRange {
                    min_priority: 0,
                    max_priority: 0,
                }],
            }),
            max_batch_total_size_bytes: i64::try_from(options.batch_len).unwrap_or(i64::MAX),
            max_cas_blob_size_bytes: i64::try_from(options.blob_len_max).unwrap_or(i64::MAX),
            symlink_absolute_path_strategy: Symlinks::Allowed as i32,
            supported_compressors: vec![zstd],
            supported_batch_update_compressors: vec![zstd],
            split_blob_support: true,
            splice_blob_support: true,
            fast_cdc_2020_params: Some(super::chunking::params()),
            ..CacheCapabilities::default()
        };
        let version = |(major, minor)| SemVer {
            major,
            minor,
            ..SemVer::default()
        };
        Ok(Response::new(ServerCapabilities {
            cache_capabilities: Some(cache),
            low_api_version: Some(version(VERSIONS[0])),
            high_api_version: Some(version(VERSIONS[1])),
            ..ServerCapabilities::default()
        }))
    }
}

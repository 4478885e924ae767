//! Results of actions: what was made of which inputs by which command, so that nobody makes it again.
//!
//! A result is answered only if all that it names is there, which lives on with the answer. Taking one needs a right of its own: who
//! can write here decides what others run. Entries are of an instance, blobs of its bucket.

use std::sync::Arc;

use bytes::Bytes;
use cairn_identity::{Action as Right, Permit};
use cairn_index::BlobHasher;
use cairn_index::names::{BlobDigest, BlobFunction, BlobKey, Bucket};
use cairn_proto::execution::{
    Action, ActionResult, Directory, GetActionResultRequest, Tree, UpdateActionResultRequest, action_cache_server,
};
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::error::{Answer, missing};
use super::names::{action_of, digest_of, function_of, message_of};
use super::{Admitted, Ask, Core};

/// Bytes of an encoded result, at most.
const RESULT_LEN_MAX: u64 = 4 << 20;
/// Bytes of an encoded tree, action or command that is read.
const MESSAGE_LEN_MAX: u64 = 16 << 20;
/// Output of a command that is longer becomes a blob.
const RAW_LEN_MAX: usize = 1 << 10;
/// Bytes of blobs that are put into an answer at the caller's wish.
const INLINED_LEN_MAX: u64 = 1 << 20;

#[derive(Clone, Debug)]
pub(super) struct ActionCache(pub(super) Arc<Core>);

#[tonic::async_trait]
impl action_cache_server::ActionCache for ActionCache {
    async fn get_action_result(
        &self,
        request: Request<GetActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        let ask = Ask::new(
            request.metadata(),
            &request.get_ref().instance_name,
            Right::GetActionResult,
        )?;
        let request = request.into_inner();
        let work = move |core: &Arc<Core>, admitted: Admitted| get(core, admitted.permit.clone(), &admitted, &request);
        self.0.admitted(ask, work).await.map(Response::new)
    }

    async fn update_action_result(
        &self,
        request: Request<UpdateActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        let ask = Ask::new(
            request.metadata(),
            &request.get_ref().instance_name,
            Right::PutActionResult,
        )?;
        let request = request.into_inner();
        let work =
            move |core: &Arc<Core>, admitted: Admitted| update(core, admitted.permit.clone(), &admitted, request);
        self.0.admitted(ask, work).await.map(Response::new)
    }
}

fn get(core: &Core, _permit: Permit, admitted: &Admitted, request: &GetActionResultRequest) -> Answer<ActionResult> {
    let served = &core.options.functions;
    let function = function_of(request.digest_function, served)?;
    let action = action_of(request.action_digest.as_ref(), function, served)?;
    let none = || Status::not_found("there is no result of this action");
    let key = BlobKey::Action {
        instance: admitted.instance.clone(),
        action,
    };
    let blob = core
        .objects
        .names()
        .blobs(&admitted.bucket)
        .get(&key)?
        .ok_or_else(none)?;
    let bytes = core.objects.blob_bytes(admitted.bucket.tenant(), &blob)?;
    let mut result = ActionResult::decode(bytes).map_err(|_| none())?;
    let reader = Reader {
        core,
        bucket: &admitted.bucket,
        function: action.function(),
    };
    if !reader.is_complete(&result)? {
        return Err(Status::not_found("blobs that the result names are gone").into());
    }
    reader.inline(&mut result, request)?;
    Ok(result)
}

fn update(
    core: &Core,
    _permit: Permit,
    admitted: &Admitted,
    request: UpdateActionResultRequest,
) -> Answer<ActionResult> {
    let served = &core.options.functions;
    let function = function_of(request.digest_function, served)?;
    let action = action_of(request.action_digest.as_ref(), function, served)?;
    let mut result = request
        .action_result
        .ok_or_else(|| Status::invalid_argument("the result is missing"))?;
    let reader = Reader {
        core,
        bucket: &admitted.bucket,
        function: action.function(),
    };
    if core.options.require_action {
        reader.check_action(&digest_of(request.action_digest.as_ref(), function, served)?)?;
    }
    let mut blobs = Vec::new();
    for (raw, digest) in [
        (&mut result.stdout_raw, &mut result.stdout_digest),
        (&mut result.stderr_raw, &mut result.stderr_digest),
    ] {
        if raw.len() > RAW_LEN_MAX {
            let own = BlobHasher::digest(action.function(), raw);
            *digest = Some(message_of(&own));
            blobs.push((BlobKey::Content(own), std::mem::take(raw)));
        }
    }
    blobs.dedup_by(|a, b| a.0 == b.0);
    let encoded = Bytes::from(result.encode_to_vec());
    if encoded.len() as u64 > RESULT_LEN_MAX {
        return Err(Status::invalid_argument(format!("a result of more than {RESULT_LEN_MAX} bytes")).into());
    }
    let key = BlobKey::Action {
        instance: admitted.instance.clone(),
        action,
    };
    blobs.push((key, encoded));
    core.objects.put_blobs(&admitted.bucket, &blobs)?;
    Ok(result)
}

/// Reads what results name.
struct Reader<'a> {
    core: &'a Core,
    bucket: &'a Bucket,
    function: BlobFunction,
}

impl Reader<'_> {
    fn digest(&self, digest: Option<&cairn_proto::execution::Digest>) -> Answer<BlobDigest> {
        Ok(digest_of(digest, Some(self.function), &self.core.options.functions)?)
    }

    /// A small blob; `None`: it is not there.
    fn bytes(&self, digest: BlobDigest) -> Answer<Option<Bytes>> {
        if Core::is_empty(&digest) {
            return Ok(Some(Bytes::new()));
        }
        let objects = &self.core.objects;
        match objects.names().blobs(self.bucket).get(&BlobKey::Content(digest))? {
            Some(blob) if blob.len <= MESSAGE_LEN_MAX => Ok(Some(objects.blob_bytes(self.bucket.tenant(), &blob)?)),
            Some(_) => Err(Status::invalid_argument("what should be a message is too large for one").into()),
            None => Ok(None),
        }
    }

    /// Errors: `FAILED_PRECONDITION` where the action, or the command that it names, is not there.
    fn check_action(&self, action: &BlobDigest) -> Answer<()> {
        let absent = |digest: &BlobDigest| {
            missing(
                "the action and its command have to be sent before its result",
                [format!("blobs/{digest}")],
            )
        };
        let bytes = self.bytes(*action)?.ok_or_else(|| absent(action))?;
        // moon's actions are documents of its own: then there is no command to look for.
        let command = Action::decode(bytes).ok().and_then(|action| action.command_digest);
        let Some(command) = command.and_then(|command| self.digest(Some(&command)).ok()) else {
            return Ok(());
        };
        let key = [BlobKey::Content(command)];
        if !Core::is_empty(&command) && self.core.objects.names().blobs(self.bucket).present(&key)? != [true] {
            return Err(absent(&command).into());
        }
        Ok(())
    }

    /// Whether all that a result names is there; it lives on then.
    fn is_complete(&self, result: &ActionResult) -> Answer<bool> {
        let mut named = Vec::new();
        for file in &result.output_files {
            // Contents may be in the result alone.
            if file.contents.is_empty() || file.digest.is_some() {
                named.push(self.digest(file.digest.as_ref())?);
            }
        }
        for digest in [&result.stdout_digest, &result.stderr_digest].into_iter().flatten() {
            named.push(self.digest(Some(digest))?);
        }
        for folder in &result.output_directories {
            if folder.tree_digest.is_some() {
                let tree = self.digest(folder.tree_digest.as_ref())?;
                let Some(bytes) = self.bytes(tree)? else {
                    return Ok(false);
                };
                let wrong = || Status::not_found("a tree that the result names is none");
                let tree = Tree::decode(bytes).map_err(|_| wrong())?;
                for directory in tree.root.iter().chain(&tree.children) {
                    self.files_of(directory, &mut named)?;
                }
            }
            if folder.root_directory_digest.is_some() {
                named.push(self.digest(folder.root_directory_digest.as_ref())?);
            }
        }
        named.sort_unstable();
        named.dedup();
        named.retain(|digest| !Core::is_empty(digest));
        let keys: Vec<BlobKey> = named.into_iter().map(BlobKey::Content).collect();
        let present = self.core.objects.names().blobs(self.bucket).present(&keys)?;
        Ok(present.into_iter().all(|present| present))
    }

    fn files_of(&self, directory: &Directory, named: &mut Vec<BlobDigest>) -> Answer<()> {
        for file in &directory.files {
            named.push(self.digest(file.digest.as_ref())?);
        }
        Ok(())
    }

    /// Puts into a result what its caller would ask for next, as far as there is room.
    fn inline(&self, result: &mut ActionResult, request: &GetActionResultRequest) -> Answer<()> {
        let mut room = INLINED_LEN_MAX;
        let mut read = |digest: Option<&cairn_proto::execution::Digest>| -> Answer<Option<Bytes>> {
            let Some(digest) = digest else { return Ok(None) };
            let digest = self.digest(Some(digest))?;
            if digest.size() > room {
                return Ok(None);
            }
            let bytes = self.bytes(digest)?;
            room -= bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
            Ok(bytes)
        };
        if request.inline_stdout && result.stdout_raw.is_empty() {
            result.stdout_raw = read(result.stdout_digest.as_ref())?.unwrap_or_default();
        }
        if request.inline_stderr && result.stderr_raw.is_empty() {
            result.stderr_raw = read(result.stderr_digest.as_ref())?.unwrap_or_default();
        }
        for file in &mut result.output_files {
            if file.contents.is_empty() && request.inline_output_files.contains(&file.path) {
                file.contents = read(file.digest.as_ref())?.unwrap_or_default();
            }
        }
        Ok(())
    }
}

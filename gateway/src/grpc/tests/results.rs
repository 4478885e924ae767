//! What names blobs: trees, results of actions, chunks; and the bounds of calls.

use super::*;

fn folder(names: &[(&str, &Digest)]) -> Directory {
    let node = |(name, digest): &(&str, &Digest)| DirectoryNode {
        name: (*name).to_owned(),
        digest: Some((*digest).clone()),
    };
    Directory {
        directories: names.iter().map(node).collect(),
        ..Default::default()
    }
}

/// Goal: a tree comes in pages, each directory once, without those that are missing, and can be gone on with.
#[tokio::test(flavor = "multi_thread")]
async fn trees_come_in_pages_and_can_be_gone_on_with() {
    let world = World::with(|options| options.page = 3);
    let leaves: Vec<Bytes> = (0..7)
        .map(|n| {
            let leaf = Directory {
                symlinks: vec![SymlinkNode {
                    name: format!("{n}"),
                    target: "x".to_owned(),
                    ..Default::default()
                }],
                ..Default::default()
            };
            leaf.encode_to_vec().into()
        })
        .collect();
    let own = world.put(&leaves).await;
    let absent = digest(b"absent directory");
    let mut children: Vec<(String, &Digest)> = own
        .iter()
        .enumerate()
        .map(|(n, digest)| (format!("d{n}"), digest))
        .collect();
    children.push(("twice".to_owned(), &own[0]));
    children.push(("absent".to_owned(), &absent));
    let named: Vec<(&str, &Digest)> = children.iter().map(|(name, digest)| (name.as_str(), *digest)).collect();
    let root = Bytes::from(folder(&named).encode_to_vec());
    let root = world.put(&[root]).await.remove(0);
    let ask = |page_token: &str| GetTreeRequest {
        root_digest: Some(root.clone()),
        page_token: page_token.to_owned(),
        ..Default::default()
    };
    let mut pages = Vec::new();
    let mut stream = world.cas().get_tree(ask("")).await.unwrap().into_inner();
    while let Some(page) = stream.message().await.unwrap() {
        pages.push(page);
    }
    assert_eq!(pages.iter().map(|page| page.directories.len()).sum::<usize>(), 8);
    assert!(
        pages[..pages.len() - 1]
            .iter()
            .all(|page| !page.next_page_token.is_empty())
    );
    assert!(pages.last().unwrap().next_page_token.is_empty());
    let mut again = world
        .cas()
        .get_tree(ask(&pages[0].next_page_token))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        again.message().await.unwrap().unwrap().directories,
        pages[1].directories
    );
    let none = GetTreeRequest {
        root_digest: Some(absent),
        ..Default::default()
    };
    assert_eq!(world.cas().get_tree(none).await.unwrap_err().code(), Code::NotFound);
    let wrong = world.cas().get_tree(ask("three")).await.unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument);
    let no_directory = world.put(&[Bytes::from_static(b"\xff\xff\xff")]).await.remove(0);
    let wrong = GetTreeRequest {
        root_digest: Some(no_directory),
        ..Default::default()
    };
    assert_eq!(
        world.cas().get_tree(wrong).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

/// Goal: a result is taken from those who may, once its action is there, and answered as long as all that it names is.
#[tokio::test(flavor = "multi_thread")]
async fn results_are_answered_as_long_as_all_they_name_is_there() {
    let world = World::new();
    let command = Bytes::from(
        Command {
            arguments: vec!["true".to_owned()],
            ..Default::default()
        }
        .encode_to_vec(),
    );
    let action = Bytes::from(
        cairn_proto::execution::Action {
            command_digest: Some(digest(&command)),
            ..Default::default()
        }
        .encode_to_vec(),
    );
    let output = noise(60, 9000);
    let inner = noise(61, 100);
    let tree = Bytes::from(
        Tree {
            root: Some(Directory {
                files: vec![FileNode {
                    name: "inner".to_owned(),
                    digest: Some(digest(&inner)),
                    ..Default::default()
                }],
                ..Default::default()
            }),
            ..Default::default()
        }
        .encode_to_vec(),
    );
    let result = ActionResult {
        output_files: vec![OutputFile {
            path: "out".to_owned(),
            digest: Some(digest(&output)),
            ..Default::default()
        }],
        output_directories: vec![OutputDirectory {
            path: "dir".to_owned(),
            tree_digest: Some(digest(&tree)),
            ..Default::default()
        }],
        stdout_raw: Bytes::from("said\n".repeat(1000)),
        exit_code: 0,
        ..Default::default()
    };
    let update = |instance: &str| UpdateActionResultRequest {
        instance_name: instance.to_owned(),
        action_digest: Some(digest(&action)),
        action_result: Some(result.clone()),
        ..Default::default()
    };
    let get = |instance: &str| GetActionResultRequest {
        instance_name: instance.to_owned(),
        action_digest: Some(digest(&action)),
        inline_stdout: true,
        inline_output_files: vec!["out".to_owned()],
        ..Default::default()
    };
    let refused = world
        .actions("writes")
        .update_action_result(update(""))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let none = world.actions("reads").get_action_result(get("")).await.unwrap_err();
    assert_eq!(none.code(), Code::NotFound);
    for part in [&action, &command] {
        let early = world.actions("all").update_action_result(update("")).await.unwrap_err();
        assert_eq!(early.code(), Code::FailedPrecondition);
        let status = cairn_proto::google::rpc::Status::decode(early.details()).unwrap();
        let detail = &status.details[0];
        let failure = cairn_proto::google::rpc::PreconditionFailure::decode(&detail.value[..]).unwrap();
        assert_eq!(failure.violations[0].subject, format!("blobs/{}", path(&digest(part))));
        world.put(std::slice::from_ref(part)).await;
    }
    let taken = world
        .actions("all")
        .update_action_result(update(""))
        .await
        .unwrap()
        .into_inner();
    assert!(
        taken.stdout_raw.is_empty() && taken.stdout_digest.is_some(),
        "what is long becomes a blob"
    );
    for part in [&output, &tree, &inner] {
        let incomplete = world.actions("reads").get_action_result(get("")).await.unwrap_err();
        assert_eq!(incomplete.code(), Code::NotFound);
        world.put(std::slice::from_ref(part)).await;
    }
    let found = world
        .actions("reads")
        .get_action_result(get(""))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(found.stdout_raw, result.stdout_raw);
    assert_eq!(found.output_files[0].contents, output);
    // A cache that passes results on knows the action's hash alone.
    for size_bytes in [-1, 0, 1 << 40] {
        let hash = digest(&action).hash;
        let by_hash = GetActionResultRequest {
            action_digest: Some(Digest { hash, size_bytes }),
            ..get("")
        };
        let passed_on = world.actions("reads").get_action_result(by_hash).await.unwrap();
        assert_eq!(passed_on.into_inner(), found);
    }
    let document = Bytes::from_static(b"{\"this\": \"is no Action\"}");
    world.put(std::slice::from_ref(&document)).await;
    let other = UpdateActionResultRequest {
        action_digest: Some(digest(&document)),
        ..update("")
    };
    world.actions("all").update_action_result(other).await.unwrap();
    let elsewhere = world
        .actions("reads")
        .get_action_result(get("main/other"))
        .await
        .unwrap_err();
    assert_eq!(elsewhere.code(), Code::NotFound, "results are of an instance");
    let blobs = world.door.objects().names().blobs(&world.bucket);
    let key = cairn_index::names::BlobKey::Content(BlobHasher::digest(BlobFunction::Sha256, &inner));
    blobs.delete(&key).unwrap();
    let incomplete = world.actions("reads").get_action_result(get("")).await.unwrap_err();
    assert_eq!(incomplete.code(), Code::NotFound);
}

/// Goal: a large blob is cut as the protocol says, its chunks are blobs that make it up, and nothing is stored for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_split_into_chunks_that_make_it_up() {
    let world = World::new();
    let blob = noise(80, 9_000_000);
    let own = world.put(&[blob.slice(..1_000_000)]).await.remove(0);
    let split = |own: &Digest| SplitBlobRequest {
        blob_digest: Some(own.clone()),
        ..Default::default()
    };
    let small = world.cas().split_blob(split(&own)).await.unwrap().into_inner();
    assert_eq!(small.chunk_digests, [own], "less than the largest chunk is not cut");
    let absent = world.cas().split_blob(split(&digest(b"absent"))).await.unwrap_err();
    assert_eq!(absent.code(), Code::NotFound);
    let own = digest(&blob);
    let name = format!("uploads/s/blobs/{}", path(&own));
    world.write(messages(&name, &blob, 0, 1 << 20)).await.unwrap();
    let answer = world.cas().split_blob(split(&own)).await.unwrap().into_inner();
    assert_eq!(answer.chunking_function, 1);
    let (avg, level) = (512 << 10, fastcdc::v2020::Normalization::Level2);
    let cuts = fastcdc::v2020::FastCDC::with_level_and_seed(&blob, avg / 4, avg, avg * 4, level, 0);
    let expected: Vec<Digest> = cuts
        .map(|cut| digest(&blob[cut.offset..cut.offset + cut.length]))
        .collect();
    assert!(expected.len() > 5);
    assert_eq!(answer.chunk_digests, expected);
    assert!(world.missing(&expected).await.is_empty());
    let mut read = Vec::new();
    for chunk in &expected {
        read.extend(world.read(format!("blobs/{}", path(chunk)), 0, 0).await.unwrap());
        let frames = world
            .read(format!("compressed-blobs/zstd/{}", path(chunk)), 5, 0)
            .await
            .unwrap();
        let plain = super::zstd::decode(&frames, chunk.size_bytes as usize - 5).unwrap();
        assert_eq!(plain, read[read.len() - plain.len()..]);
    }
    assert_eq!(read, blob);
    let again = world.cas().split_blob(split(&own)).await.unwrap().into_inner();
    assert_eq!(again, answer);
    let request = GetChunkMappingRequest {
        blob_digest: Some(own.clone()),
        ..Default::default()
    };
    let mut pages = world.cas().get_chunk_mapping(request).await.unwrap().into_inner();
    assert_eq!(pages.message().await.unwrap().unwrap().chunk_digests, expected);
}

/// Goal: a blob is put together of chunks that are there, if they are its bytes, in one message or in several.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_put_together_of_chunks() {
    let world = World::new();
    let blob = noise(81, 600_000);
    let parts = [
        blob.slice(..200_000),
        blob.slice(200_000..200_100),
        blob.slice(200_100..),
    ];
    let own = digest(&blob);
    let chunks: Vec<Digest> = parts.iter().map(|part| digest(part)).collect();
    let splice = |own: &Digest, chunks: &[Digest]| SpliceBlobRequest {
        blob_digest: Some(own.clone()),
        chunk_digests: chunks.to_vec(),
        ..Default::default()
    };
    let early = world.cas().splice_blob(splice(&own, &chunks)).await.unwrap_err();
    assert_eq!(early.code(), Code::NotFound);
    world.put(&parts).await;
    let reversed: Vec<Digest> = chunks.iter().rev().cloned().collect();
    for wrong in [splice(&own, &reversed), splice(&own, &chunks[1..]), splice(&own, &[])] {
        let refused = world.cas().splice_blob(wrong).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    for _ in 0..2 {
        let done = world
            .cas()
            .splice_blob(splice(&own, &chunks))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(done.blob_digest, Some(own.clone()), "again it is there");
    }
    assert_eq!(world.read(format!("blobs/{}", path(&own)), 0, 0).await.unwrap(), blob);
    for (chunk, part) in chunks.iter().zip(&parts) {
        assert_eq!(world.read(format!("blobs/{}", path(chunk)), 0, 0).await.unwrap(), *part);
    }
    let turned = [&parts[2][..], &parts[0][..]].concat();
    let first = RegisterChunkMappingRequest {
        blob_digest: Some(digest(&turned)),
        chunk_digests: vec![chunks[2].clone()],
        ..Default::default()
    };
    let second = RegisterChunkMappingRequest {
        chunk_digests: vec![chunks[0].clone()],
        ..Default::default()
    };
    let messages = futures_util::stream::iter([first, second]);
    let done = world.cas().register_chunk_mapping(messages).await.unwrap().into_inner();
    assert_eq!(done.blob_digest, Some(digest(&turned)));
    let read = world
        .read(format!("blobs/{}", path(&digest(&turned))), 0, 0)
        .await
        .unwrap();
    assert_eq!(read, turned);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_too_many_is_told_to_come_again() {
    let world = World::with(|options| options.calls = 1);
    let blob = noise(70, 5_000_000);
    let own = world.put(std::slice::from_ref(&blob)).await.remove(0);
    let request = ReadRequest {
        resource_name: format!("blobs/{}", path(&own)),
        ..Default::default()
    };
    let held = world.bytes().read(request.clone()).await.unwrap();
    let refused = world.bytes().read(request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "the first is being read");
    drop(held);
    world.bytes().read(request).await.unwrap();
}

/// Goal: a call ends when its time is over, whatever its client does.
#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_a_call_is_kept() {
    let world = World::new();
    let stalled = futures_util::stream::pending::<WriteRequest>();
    let mut request = Request::new(stalled);
    request.set_timeout(Duration::from_millis(1));
    let refused = world.bytes().write(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::DeadlineExceeded);
}

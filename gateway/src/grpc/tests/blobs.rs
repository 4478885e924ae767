//! Blobs in batches and streams, and who may have them.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn capabilities_say_what_is_served_and_who_writes_results() {
    let world = World::new();
    for (shown, updates) in [("all", true), ("writes", false), ("reads", false)] {
        let mut client = CapabilitiesClient::new(world.channel(shown));
        let answer = client
            .get_capabilities(GetCapabilitiesRequest::default())
            .await
            .unwrap();
        let cache = answer.into_inner().cache_capabilities.unwrap();
        assert_eq!(cache.max_batch_total_size_bytes, (4 << 20) - (64 << 10));
        assert_eq!(cache.digest_functions[..2], [1, 9]);
        assert_eq!(cache.action_cache_update_capabilities.unwrap().update_enabled, updates);
    }
}

/// Goal: nothing is told or taken without a token that is for it.
#[tokio::test(flavor = "multi_thread")]
async fn callers_show_who_they_are_and_get_what_is_theirs() {
    let world = World::new();
    let ask = |instance: &str| FindMissingBlobsRequest {
        instance_name: instance.to_owned(),
        ..Default::default()
    };
    let cas = |shown| ContentAddressableStorageClient::new(world.channel(shown));
    for (shown, instance, code) in [
        ("", "", Code::Unauthenticated),
        ("wrong", "", Code::Unauthenticated),
        ("reads", "others", Code::PermissionDenied),
        ("reads", "nothing", Code::InvalidArgument),
        ("reads", "main/blobs", Code::InvalidArgument),
    ] {
        let refused = cas(shown).find_missing_blobs(ask(instance)).await.unwrap_err();
        assert_eq!(refused.code(), code, "{shown} {instance}: {refused}");
    }
    for instance in ["", "main", "main/sub/instance"] {
        cas("reads").find_missing_blobs(ask(instance)).await.unwrap();
    }
    let refused = cas("reads")
        .batch_update_blobs(BatchUpdateBlobsRequest::default())
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    let open = World::with(|options| options.anonymous = Some(token("nobody", false, false)));
    let mut nobody = ContentAddressableStorageClient::new(open.channel(""));
    nobody.find_missing_blobs(ask("")).await.unwrap();
    let refused = nobody.batch_update_blobs(BatchUpdateBlobsRequest::default()).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
}

/// Goal: what was put in a batch is there, reads back, plain and compressed, and each blob has its own status.
#[tokio::test(flavor = "multi_thread")]
async fn batches_put_and_read_blobs_each_with_its_own_status() {
    let world = World::new();
    let text = Bytes::from("the same line again and again\n".repeat(10_000));
    let blobs = [
        noise(1, 1),
        noise(2, 5000),
        noise(3, 300_000),
        text.clone(),
        Bytes::new(),
    ];
    let digests = world.put(&blobs).await;
    let absent = digest(b"absent");
    let asked: Vec<Digest> = digests
        .iter()
        .cloned()
        .chain([absent.clone(), absent.clone()])
        .collect();
    assert_eq!(world.missing(&asked).await, [absent.clone(), absent.clone()]);
    for zstd in [false, true] {
        let request = BatchReadBlobsRequest {
            digests: asked.clone(),
            acceptable_compressors: if zstd { vec![1] } else { Vec::new() },
            ..Default::default()
        };
        let answer = world.cas().batch_read_blobs(request).await.unwrap().into_inner();
        for (one, blob) in answer.responses.iter().zip(&blobs) {
            assert_eq!(one.status.as_ref().unwrap().code, 0);
            let plain = match one.compressor {
                0 => one.data.to_vec(),
                _ => super::zstd::decode(&one.data, blob.len()).unwrap(),
            };
            assert_eq!(plain, *blob);
            assert!(one.compressor == 0 || (zstd && one.data.len() < blob.len()));
        }
        assert_eq!(zstd, answer.responses[3].compressor == 1, "text shrinks");
        let status = answer.responses[5].status.as_ref().unwrap();
        assert_eq!(status.code, Code::NotFound as i32);
    }
    let other = noise(4, 100);
    let update = |digest: &Digest, data: Bytes, compressor: i32| batch_update_blobs_request::Request {
        digest: Some(digest.clone()),
        data,
        compressor,
    };
    let request = BatchUpdateBlobsRequest {
        requests: vec![
            update(&digest(&other), noise(5, 100), 0),
            update(&digest(&text), compress_frame(&text, Level::new(3)).into(), 1),
            update(&digest(&other), Bytes::from_static(b"no zstd"), 1),
            update(&digest(&other), other.clone(), 2),
            update(
                &Digest {
                    size_bytes: -1,
                    ..digest(&other)
                },
                other.clone(),
                0,
            ),
        ],
        ..Default::default()
    };
    let answer = world.cas().batch_update_blobs(request).await.unwrap().into_inner();
    let codes: Vec<i32> = answer
        .responses
        .iter()
        .map(|one| one.status.as_ref().unwrap().code)
        .collect();
    assert_eq!(codes, [3, 0, 3, 3, 3]);
    assert_eq!(world.missing(&[digest(&other)]).await.len(), 1);
    let too_much = BatchReadBlobsRequest {
        digests: vec![Digest {
            size_bytes: 17 << 20,
            ..absent
        }],
        ..Default::default()
    };
    let refused = world.cas().batch_read_blobs(too_much).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_function_names_blobs_of_its_own() {
    let world = World::new();
    let bytes = noise(6, 40_000);
    for function in BlobFunction::ALL {
        let own = message_of(&BlobHasher::digest(function, &bytes));
        let value = super::names::function_value(function) as i32;
        let ask = FindMissingBlobsRequest {
            blob_digests: vec![own.clone()],
            digest_function: value,
            ..Default::default()
        };
        let missing = world.cas().find_missing_blobs(ask.clone()).await.unwrap().into_inner();
        assert_eq!(missing.missing_blob_digests.len(), 1, "{function:?}");
        let request = BatchUpdateBlobsRequest {
            requests: vec![batch_update_blobs_request::Request {
                digest: Some(own.clone()),
                data: bytes.clone(),
                ..Default::default()
            }],
            digest_function: value,
            ..Default::default()
        };
        let answer = world.cas().batch_update_blobs(request).await.unwrap().into_inner();
        assert_eq!(answer.responses[0].status.as_ref().unwrap().code, 0);
        let named = if function == BlobFunction::Blake3 {
            "blake3/"
        } else {
            ""
        };
        let read = world.read(format!("blobs/{named}{}", path(&own)), 0, 0).await.unwrap();
        assert_eq!(read, bytes);
    }
}

/// Goal: any range of a blob is what it should be, plain and as frames.
#[tokio::test(flavor = "multi_thread")]
async fn streams_read_from_any_place_on() {
    let world = World::new();
    for blob in [
        noise(7, 3_000_000),
        noise(8, 3000),
        Bytes::from("line\n".repeat(300_000)),
    ] {
        let own = world.put(std::slice::from_ref(&blob)).await.remove(0);
        let len = blob.len() as i64;
        for (from, limit) in [
            (0, 0),
            (1, 0),
            (len / 2, 100),
            (len - 1, 0),
            (len, 0),
            (0, len + 5),
            (70_000.min(len), 1),
        ] {
            let to = if limit == 0 { len } else { len.min(from + limit) };
            let plain = world
                .read(format!("main/blobs/{}", path(&own)), from, limit)
                .await
                .unwrap();
            assert_eq!(plain, blob[from as usize..to as usize], "{from} {limit}");
            if limit == 0 {
                let name = format!("compressed-blobs/zstd/{}", path(&own));
                let frames = world.read(name, from, 0).await.unwrap();
                let plain = super::zstd::decode(&frames, (len - from) as usize).unwrap();
                assert_eq!(plain, blob[from as usize..], "{from}");
            }
        }
        let name = |form: &str| format!("{form}/{}", path(&own));
        for (name, from, limit, code) in [
            (name("blobs"), len + 1, 0, Code::OutOfRange),
            (name("blobs"), -1, 0, Code::OutOfRange),
            (name("blobs"), 0, -1, Code::InvalidArgument),
            (name("compressed-blobs/zstd"), 0, 1, Code::InvalidArgument),
            (name("compressed-blobs/deflate"), 0, 0, Code::InvalidArgument),
            (format!("blobs/{}", path(&digest(b"absent"))), 0, 0, Code::NotFound),
        ] {
            assert_eq!(
                world.read(name.clone(), from, limit).await.unwrap_err().code(),
                code,
                "{name}"
            );
        }
    }
    let empty = digest(b"");
    assert_eq!(world.read(format!("blobs/{}", path(&empty)), 0, 0).await.unwrap(), b"");
    assert_eq!(
        world
            .read(format!("compressed-blobs/zstd/{}", path(&empty)), 0, 0)
            .await
            .unwrap(),
        b""
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_names_another_resource_is_refused() {
    let world = World::new();
    let own = world.put(&[noise(9, 10)]).await.remove(0);
    for (named, works) in [
        (format!("blobs/{}", path(&own)), true),
        ("blobs/other".to_owned(), false),
    ] {
        let mut request = Request::new(ReadRequest {
            resource_name: format!("blobs/{}", path(&own)),
            ..Default::default()
        });
        let header = "build.bazel.remote.execution.v2.resource-name";
        request.metadata_mut().insert(header, named.parse().unwrap());
        assert_eq!(world.bytes().read(request).await.is_ok(), works);
    }
}

/// Goal: blobs of any size arrive through streams, cut anywhere, plain and compressed; what is there already ends its upload at once.
#[tokio::test(flavor = "multi_thread")]
async fn streams_write_plain_and_compressed() {
    let world = World::new();
    for (n, len) in [1, 4096, 1_500_000].into_iter().enumerate() {
        let plain = noise(20 + n as u64, len);
        let name = format!("main/uploads/u{n}/blobs/{}/metadata", path(&digest(&plain)));
        let sent = world.write(messages(&name, &plain, 0, 60_000)).await.unwrap();
        assert_eq!(sent, len as i64);
        let again = world.write(messages(&name, &plain[..1], 0, 1)).await.unwrap();
        assert_eq!(again, len as i64, "it is there");
        assert!(world.missing(&[digest(&plain)]).await.is_empty());

        let text = Bytes::from(format!("{n} line\n").repeat(len));
        let coded = [
            compress_frame(&text[..len / 2], Level::new(3)),
            compress_frame(&text[len / 2..], Level::new(3)),
        ]
        .concat();
        let name = format!("uploads/z{n}/compressed-blobs/zstd/{}", path(&digest(&text)));
        let sent = world.write(messages(&name, &coded, 0, 999)).await.unwrap();
        assert_eq!(sent, coded.len() as i64);
        assert_eq!(world.write(messages(&name, &coded, 0, 999)).await.unwrap(), -1);
        let read = world
            .read(format!("blobs/{}", path(&digest(&text))), 0, 0)
            .await
            .unwrap();
        assert_eq!(read, text);
    }
    let name = format!("uploads/e/blobs/{}", path(&digest(b"")));
    assert_eq!(world.write(messages(&name, b"", 0, 1)).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_not_its_digest_makes_nothing() {
    let world = World::new();
    let (right, wrong) = (noise(30, 100_000), noise(31, 100_000));
    let own = digest(&right);
    let text = compress_frame(&right, Level::new(3));
    let plain = |n| format!("uploads/w{n}/blobs/{}", path(&own));
    let zstd = |n| format!("uploads/w{n}/compressed-blobs/zstd/{}", path(&own));
    let mut moved = messages(&plain(3), &right, 0, 5000);
    moved[2].write_offset += 1;
    let mut renamed = messages(&plain(4), &right, 0, 5000);
    renamed[2].resource_name = plain(5);
    for sent in [
        messages(&plain(0), &wrong, 0, 5000),
        messages(&plain(1), &right[1..], 0, 5000),
        messages(&plain(2), &[&right[..], b"more"].concat(), 0, 5000),
        moved,
        renamed,
        messages(&plain(6), &right, 5, 5000),
        messages(&plain(7), &right, -1, 5000),
        messages(&zstd(8), &right, 0, 5000),
        messages(&zstd(9), &text[..text.len() - 1], 0, 5000),
        messages(&format!("blobs/{}", path(&own)), &right, 0, 5000),
        Vec::new(),
    ] {
        let refused = world.write(sent).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    assert_eq!(world.missing(&[own]).await.len(), 1);
}

/// Goal: an upload that stops goes on where it stopped, plain or compressed, and says where that is.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_stops_goes_on_where_it_stopped() {
    let world = World::new();
    let plain = noise(40, 1_000_000);
    let name = format!("uploads/r/blobs/{}", path(&digest(&plain)));
    let status = || {
        let mut bytes = world.bytes();
        let resource_name = name.clone();
        async move {
            bytes
                .query_write_status(QueryWriteStatusRequest { resource_name })
                .await
        }
    };
    assert_eq!(status().await.unwrap_err().code(), Code::NotFound);
    let mut first = messages(&name, &plain[..400_000], 0, 30_000);
    first.last_mut().unwrap().finish_write = false;
    assert_eq!(world.write(first).await.unwrap(), 400_000);
    let told = status().await.unwrap().into_inner();
    assert_eq!((told.committed_size, told.complete), (400_000, false));
    let wrong = world.write(messages(&name, &plain[300_000..], 300_000, 30_000)).await;
    assert_eq!(wrong.unwrap_err().code(), Code::InvalidArgument);
    let rest = messages(&name, &plain[400_000..], 400_000, 30_000);
    assert_eq!(world.write(rest).await.unwrap(), 1_000_000);
    let told = status().await.unwrap().into_inner();
    assert_eq!((told.committed_size, told.complete), (1_000_000, true));
    let read = world
        .read(format!("blobs/{}", path(&digest(&plain))), 0, 0)
        .await
        .unwrap();
    assert_eq!(read, plain);

    let text = Bytes::from("compressed lines\n".repeat(50_000));
    let name = format!("uploads/r/compressed-blobs/zstd/{}", path(&digest(&text)));
    let half = compress_frame(&text[..text.len() / 2], Level::new(3));
    let mut first = messages(&name, &half, 0, 100);
    first.last_mut().unwrap().finish_write = false;
    let stopped = world.write(first).await.unwrap();
    assert_eq!(stopped, (text.len() / 2) as i64, "plain bytes");
    let rest = compress_frame(&text[text.len() / 2..], Level::new(3));
    world.write(messages(&name, &rest, stopped, 100)).await.unwrap();
    let read = world
        .read(format!("blobs/{}", path(&digest(&text))), 0, 0)
        .await
        .unwrap();
    assert_eq!(read, text);
}

/// Goal: what bazel-remote sends as a proxy is taken: no offset behind the first message, and no word that it was the last one.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_without_offsets_that_ends_when_all_is_there_is_one() {
    let world = World::new();
    let text = Bytes::from("compressed lines\n".repeat(50_000));
    let plain = noise(45, 3_000_000);
    let frames = compress_frame(&text, Level::new(3));
    let bare = |name: &str, bytes: &[u8]| {
        let mut sent = messages(name, bytes, 0, 1000);
        for message in &mut sent {
            (message.write_offset, message.finish_write) = (0, false);
        }
        sent
    };
    let (whole, compressed) = (path(&digest(&plain)), path(&digest(&text)));
    let taken = world.write(bare(&format!("uploads/p/blobs/{whole}"), &plain)).await;
    assert_eq!(taken.unwrap(), 3_000_000);
    let name = format!("uploads/z/compressed-blobs/zstd/{compressed}");
    assert_eq!(world.write(bare(&name, &frames)).await.unwrap(), frames.len() as i64);
    assert_eq!(world.read(format!("blobs/{whole}"), 0, 0).await.unwrap(), plain);
    assert_eq!(world.read(format!("blobs/{compressed}"), 0, 0).await.unwrap(), text);
    // Bytes that are others are found out.
    let other = noise(46, 3_000_000);
    let wrong = world
        .write(bare(&format!("uploads/q/blobs/{}", path(&digest(&other))), &plain))
        .await;
    assert_eq!(wrong.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(world.missing(&[digest(&other)]).await.len(), 1);
}

/// Goal: uploads that wait are bounded; the one that has waited longest makes room.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_wait_make_room_for_new_ones() {
    let world = World::with(|options| options.uploads = 2);
    let blobs: Vec<Bytes> = (50..53).map(|seed| noise(seed, 100_000)).collect();
    let name = |n: usize| format!("uploads/{n}/blobs/{}", path(&digest(&blobs[n])));
    for (n, blob) in blobs.iter().enumerate() {
        let mut half = messages(&name(n), &blob[..50_000], 0, 10_000);
        half.last_mut().unwrap().finish_write = false;
        assert_eq!(world.write(half).await.unwrap(), 50_000);
    }
    let gone = world
        .write(messages(&name(0), &blobs[0][50_000..], 50_000, 10_000))
        .await;
    assert_eq!(gone.unwrap_err().code(), Code::InvalidArgument);
    for (n, blob) in blobs.iter().enumerate().skip(1) {
        let rest = messages(&name(n), &blob[50_000..], 50_000, 10_000);
        assert_eq!(world.write(rest).await.unwrap(), 100_000);
    }
}

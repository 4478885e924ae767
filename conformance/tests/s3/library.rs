//! The crate `object_store` and the suite that it tests its own stores with.

use cairn_conformance::s3::Door;
use cairn_conformance::support::ok;
use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum, S3CopyIfNotExists};
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt as _, PutPayload, integration};

use crate::suites;

fn builder(door: &Door, bucket: &str) -> AmazonS3Builder {
    // An error says that there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    AmazonS3Builder::new()
        .with_endpoint(&door.url)
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_bucket_name(bucket)
        .with_access_key_id(&door.key)
        .with_secret_access_key(&door.secret)
}

/// A door with the bucket `library`.
fn door(folder: &std::path::Path) -> Door {
    let door = Door::start(&folder.join("data"), &[]);
    let mut command = door.client("cairn-python", folder);
    command.args(["-B", "-c", "import door; door.client().create_bucket(Bucket='library')"]);
    ok(command.current_dir(suites()));
    door
}

fn store(door: &Door) -> AmazonS3 {
    builder(door, "library").build().unwrap()
}

/// Goal: what `object_store` asks of Amazon's service holds here: its own suite, with each way to send a body that it has.
#[test]
fn object_store_passes_its_own_suite() {
    let folder = tempfile::tempdir().unwrap();
    let door = door(folder.path());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let marked = builder(&door, "library").with_http_connector(integration::MarkerHttpConnector::default());
        let all = marked.build().unwrap();
        integration::put_get_delete_list(&all).await;
        integration::list_with_offset_exclusivity(&all).await;
        integration::get_opts(&all).await;
        integration::list_uses_directories_correctly(&all).await;
        integration::list_with_delimiter(&all).await;
        integration::rename_and_copy(&all).await;
        integration::stream_get(&all).await;
        integration::multipart(&all, &all).await;
        integration::multipart_with_opts(&all, &all).await;
        integration::multipart_put_part_out_of_order(&all, &all).await;
        integration::multipart_race_condition(&all, true).await;
        integration::multipart_out_of_order(&all).await;
        integration::put_get_attributes(&all).await;
        integration::list_paginated(&all, &all).await;
        integration::response_extensions(&all, true).await;
        integration::put_opts(&all, true).await;
        let by_header = S3CopyIfNotExists::Header("if-none-match".to_owned(), "*".to_owned());
        for way in [S3CopyIfNotExists::Multipart, by_header] {
            let copying = builder(&door, "library").with_copy_if_not_exists(way).build().unwrap();
            integration::copy_if_not_exists(&copying).await;
        }
        let bodies = [
            builder(&door, "library").with_unsigned_payload(true),
            builder(&door, "library").with_checksum_algorithm(Checksum::SHA256),
            builder(&door, "library").with_checksum_algorithm(Checksum::CRC64NVME),
        ];
        for body in bodies {
            integration::put_get_delete_list(&body.build().unwrap()).await;
        }
    });
}

#[test]
fn what_is_not_there_is_told_as_object_store_expects() {
    let folder = tempfile::tempdir().unwrap();
    let door = door(folder.path());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (there, nowhere) = (store(&door), builder(&door, "no-such-bucket").build().unwrap());
        let at = Path::from("none");
        let error = integration::get_nonexistent_object(&there, Some(at.clone())).await;
        assert!(matches!(error.unwrap_err(), Error::NotFound { .. }));
        there.delete(&at).await.unwrap();
        assert!(matches!(nowhere.get(&at).await, Err(Error::NotFound { .. })));
        assert!(matches!(
            nowhere.put(&at, PutPayload::from("1")).await,
            Err(Error::NotFound { .. })
        ));
        assert!(matches!(nowhere.delete(&at).await, Err(Error::NotFound { .. })));
    });
}

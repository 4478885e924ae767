//! What can be asked for, by the names that policies use.

macro_rules! actions {
    ($($(#[doc = $doc:literal])* $action:ident = $name:literal,)*) => {
        /// What can be asked for. The name is the one policies use.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Action {
            $($(#[doc = $doc])* $action,)*
        }

        impl Action {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$action,)*];

            /// As policies write it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$action => $name,)*
                }
            }
        }
    };
}

actions! {
    /// See the names of one's buckets.
    ListAllMyBuckets = "s3:ListAllMyBuckets",
    /// Make a bucket.
    CreateBucket = "s3:CreateBucket",
    /// Take a bucket away.
    DeleteBucket = "s3:DeleteBucket",
    /// See keys of a bucket, and whether it is there.
    ListBucket = "s3:ListBucket",
    /// See all versions of keys.
    ListBucketVersions = "s3:ListBucketVersions",
    /// See uploads that are not complete.
    ListBucketMultipartUploads = "s3:ListBucketMultipartUploads",
    /// Ask where a bucket is.
    GetBucketLocation = "s3:GetBucketLocation",
    /// Read whether a bucket keeps versions.
    GetBucketVersioning = "s3:GetBucketVersioning",
    /// Set whether a bucket keeps versions.
    PutBucketVersioning = "s3:PutBucketVersioning",
    /// Read who may use a bucket.
    GetBucketAcl = "s3:GetBucketAcl",
    /// Read an object.
    GetObject = "s3:GetObject",
    /// Read a version of an object by its id.
    GetObjectVersion = "s3:GetObjectVersion",
    /// Write an object, as a whole or in parts.
    PutObject = "s3:PutObject",
    /// Delete an object, or put a delete marker.
    DeleteObject = "s3:DeleteObject",
    /// Delete a version for good.
    DeleteObjectVersion = "s3:DeleteObjectVersion",
    /// Give up an upload.
    AbortMultipartUpload = "s3:AbortMultipartUpload",
    /// See the parts of an upload.
    ListMultipartUploadParts = "s3:ListMultipartUploadParts",
    /// Read tags of an object.
    GetObjectTagging = "s3:GetObjectTagging",
    /// Write tags of an object.
    PutObjectTagging = "s3:PutObjectTagging",
    /// Take tags of an object away.
    DeleteObjectTagging = "s3:DeleteObjectTagging",
    /// Read size, checksums and parts of an object.
    GetObjectAttributes = "s3:GetObjectAttributes",
    /// Read who may use an object.
    GetObjectAcl = "s3:GetObjectAcl",
    /// Read any chunk of a bucket's dedup domain by its id, and ask whether it is there.
    GetChunk = "s3:GetObjectChunk",
    /// Put chunks into a bucket's dedup domain.
    PutChunk = "s3:PutObjectChunk",
    /// Be told what happens to objects of a bucket.
    WatchBucket = "s3:ListenBucketNotification",
    /// Read blobs of a bucket by digest, and ask whether they are there.
    GetBlob = "cas:GetBlob",
    /// Put blobs into a bucket.
    PutBlob = "cas:PutBlob",
    /// Read what came of an action.
    GetActionResult = "cas:GetActionResult",
    /// Say what came of an action: others take it for what they would have made themselves.
    PutActionResult = "cas:PutActionResult",
    /// Ask what is known of an asset.
    GetAsset = "cas:GetAsset",
    /// Have an asset fetched from elsewhere, and kept.
    FetchAsset = "cas:FetchAsset",
    /// Say what an asset is.
    PutAsset = "cas:PutAsset",
    /// See tenants and what they hold.
    ReadTenants = "tenants:read",
    /// See access keys, never their secrets.
    ReadKeys = "keys:read",
    /// Make, switch and take away access keys of any tenant.
    WriteKeys = "keys:write",
    /// See buckets of any tenant, their settings and what they hold.
    ReadBuckets = "buckets:read",
    /// Make and delete buckets of any tenant, and change their settings.
    WriteBuckets = "buckets:write",
    /// Look for objects of a tenant by what is said of them.
    SearchObjects = "objects:search",
    /// Be told what happens to objects and buckets of any tenant.
    ReadEvents = "events:read",
    /// See versions of objects of any tenant, and how they differ.
    ReadVersions = "versions:read",
    /// Make an old version of an object of any tenant its newest.
    RestoreVersions = "versions:restore",
    /// See which backups there are.
    ReadBackups = "backups:read",
    /// Take a backup of all that the server keeps.
    WriteBackups = "backups:write",
    /// See what collections and scrubs do and did.
    ReadUpkeep = "upkeep:read",
    /// Have chunks collected, or packs read for damage, now.
    RunUpkeep = "upkeep:run",
}

impl Action {
    /// Whether it is for those who run the server, and for nobody by owning something.
    pub fn is_administration(self) -> bool {
        !["s3:", "cas:"].iter().any(|owned| self.name().starts_with(owned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_action_has_a_name_of_its_own() {
        let mut names: Vec<_> = Action::ALL.iter().map(|action| action.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Action::ALL.len());
        let is_written_so = |name: &&str| {
            name.split_once(':')
                .is_some_and(|(of, what)| !of.is_empty() && !what.is_empty())
        };
        assert!(names.iter().all(is_written_so));
    }
}

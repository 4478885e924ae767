//! The operations: each takes a [`cairn_identity::Permit`], reads its request, calls the index, and answers. They may block.
//!
//! A test at the end finds a handler that takes no permit.

pub(super) mod backups;
pub(super) mod buckets;
pub(super) mod keys;
pub(super) mod search;
pub(super) mod tenants;
pub(super) mod upkeep;
pub(super) mod versions;

#[cfg(test)]
mod tests {
    /// Goal: no operation can be reached without the decision.
    /// Method: a permit comes out of `authorize` alone, so it is enough that each handler takes one; handlers are the functions of
    /// these files that the dispatcher can call.
    #[test]
    fn every_handler_takes_a_permit() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/ops");
        let mut handlers = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            for function in text.split("\npub(in crate::admin) fn ").skip(1) {
                let signature = function.split('{').next().unwrap();
                handlers += 1;
                assert!(
                    signature.contains("Permit") && signature.contains("AdminResult<Answer>"),
                    "{}: this handler takes no permit: {signature}",
                    path.display()
                );
            }
        }
        assert_eq!(handlers, crate::admin::route::Route::ALL.len());
    }
}

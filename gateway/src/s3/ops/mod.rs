//! The operations: each takes a [`cairn_identity::Permit`], reads its request, calls the index once, and answers.
//!
//! A test at the end finds a handler that takes no permit.

pub(super) mod attributes;
pub(super) mod bucket;
pub(super) mod copy;
pub(super) mod delete;
mod find;
pub(super) mod list;
pub(super) mod read;
pub(super) mod tags;
pub(super) mod upload;
pub(super) mod write;

#[cfg(test)]
mod tests {
    /// Goal: no operation can be reached without the decision.
    /// Method: a permit comes out of `authorize` alone, so it is enough that each handler takes one; handlers are the
    /// functions of these files that others can call and that answer a response.
    #[test]
    fn every_handler_takes_a_permit() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/s3/ops");
        let mut handlers = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            for function in text.split("\npub(in crate::s3) ").skip(1) {
                let signature = function.split('{').next().unwrap();
                if !signature.contains("fn ") || !signature.contains("Response<Body>") {
                    continue;
                }
                handlers += 1;
                assert!(
                    signature.contains("Permit"),
                    "{}: this handler takes no permit: {signature}",
                    path.display()
                );
            }
        }
        assert!(handlers >= 25, "only {handlers} handlers found, the search is broken");
    }
}

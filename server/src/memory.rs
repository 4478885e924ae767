//! How the allocator gives memory back.

/// Bytes from which on memory is asked of the system, and given back to it as soon as it is free.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const OWN_LEN: libc::c_int = 128 << 10;

/// Has blocks of uploads and batches go back to the system when they are done with.
///
/// glibc begins with this threshold and then raises it to what it has seen freed, so that blocks of hundreds of threads stay in its arenas: with
/// 1 000 uploads a quarter more at the peak, and all of it for ever. Other allocators are left as they are. Called once, before there are
/// threads.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub(crate) fn give_back() {
    // SAFETY: it sets a number of the allocator's own, and no other thread runs yet.
    let is_set = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_LEN) };
    if is_set == 0 {
        tracing::warn!("the allocator keeps what it has been given");
    }
}

/// As above.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn give_back() {}

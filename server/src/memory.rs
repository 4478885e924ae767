//! How the allocator gives memory back.

/// Bytes from which on memory is asked of the system, and given back to it as soon as it is free. Frames of chunks are shorter.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const OWN_LEN: libc::c_int = 512 << 10;

/// Free bytes at the end of an arena that it keeps: giving back what is asked for again at once costs more than hashing it.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_LEN: libc::c_int = 16 << 20;

/// Arenas, each of which keeps that much.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ARENAS: libc::c_int = 4;

/// Has blocks of uploads and batches go back to the system when they are done with.
///
/// glibc begins with this threshold and then raises it to what it has seen freed, so that blocks of hundreds of threads stay in its arenas: with
/// 1 000 uploads a quarter more at the peak, and all of it for ever. Other allocators are left as they are. Called once, before there are
/// threads.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub(crate) fn give_back() {
    let numbers = [
        (libc::M_MMAP_THRESHOLD, OWN_LEN),
        (libc::M_TRIM_THRESHOLD, KEPT_LEN),
        (libc::M_ARENA_MAX, ARENAS),
    ];
    for (number, value) in numbers {
        // SAFETY: it sets a number of the allocator's own, and no other thread runs yet.
        let is_set = unsafe { libc::mallopt(number, value) };
        if is_set == 0 {
            tracing::warn!(number, value, "the allocator keeps its own number");
        }
    }
}

/// As above.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn give_back() {}

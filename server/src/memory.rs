//! The allocator: jemalloc for all of the program, RocksDB's C++ too, as RocksDB advises.
//!
//! With glibc's a listing among a million objects spent a third of its time in the allocator, and blocks of uploads were either given
//! back and asked for again, a page fault each 4 KiB, or stayed in the arenas of hundreds of threads for ever.

#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What it reads at its start: few arenas, since each keeps free memory; free pages go back to the system within a second, by a thread of
/// its own.
#[cfg(target_os = "linux")]
// SAFETY: the name is the one that jemalloc looks for, the type a pointer to a text that ends with a zero byte, as it expects.
#[allow(unsafe_code)]
#[unsafe(export_name = "malloc_conf")]
static CONFIGURATION: Option<&'static std::ffi::c_char> = {
    const TEXT: &std::ffi::CStr = c"narenas:4,dirty_decay_ms:1000,muzzy_decay_ms:0,background_thread:true";
    // SAFETY: a pointer into a text that lives as long as the program.
    Some(unsafe { &*TEXT.as_ptr() })
};

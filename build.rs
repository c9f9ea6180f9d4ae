//! Sets how the allocator of the program works, for every build of it: one in this repository, an
//! image, and `cargo install` from anywhere. A variable in `.cargo/config.toml` would reach the
//! first alone.
//!
//! jemalloc reads its settings from a variable of C, which Rust can define in unsafe code only. So
//! this compiles one line of C, by the compiler that jemalloc needs anyway, and links it.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "cli")]
    allocator::set();
}

#[cfg(feature = "cli")]
mod allocator {
    use std::{env, fs, path::Path};

    /// Two arenas, because memory that one thread frees should serve the next one that needs it,
    /// and freed pages go back to the system within a second.
    const SETTINGS: &str = "narenas:2,dirty_decay_ms:1000,muzzy_decay_ms:0,tcache_max:4096";

    pub(super) fn set() {
        if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
            return;
        }
        let folder = env::var("OUT_DIR").expect("cargo sets it");
        let source = Path::new(&folder).join("malloc_conf.c");
        let line = format!("const char *_rjem_malloc_conf = \"{SETTINGS}\";\n");
        fs::write(&source, line).expect("the folder is for this");
        for object in cc::Build::new().file(source).compile_intermediates() {
            // As an object and not in a library: jemalloc has a weak variable of this name, so
            // nobody would look for another one.
            println!("cargo::rustc-link-arg-bins={}", object.display());
        }
    }
}

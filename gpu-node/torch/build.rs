//! Builds the allocator shim and tells dependants how to find libtorch at run time.
//!
//! Linker arguments do not travel from a library to the binaries that use it, so
//! the whole argument goes out as metadata, and each package with binaries or
//! tests passes it on in a build script of one line:
//!
//! ```text
//! println!("cargo::rustc-link-arg={}", std::env::var("DEP_ORFEAS_TORCH_LINK_ARG")?);
//! ```
//!
//! Search order of the finished binary: `../lib` and `lib` beside it (a release
//! folder), then the libtorch that it was built with (`cargo run`, `cargo test`).

use std::{env, error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    // Present because torch-sys (`links = "tch"`) is a direct dependency.
    let lib_dir = PathBuf::from(env::var("DEP_TCH_LIBTORCH_LIB")?);
    let include_dir = lib_dir.parent().ok_or("libtorch's lib folder has no parent")?.join("include");

    let link_arg = format!("-Wl,-rpath,$ORIGIN/../lib,-rpath,$ORIGIN/lib,-rpath,{}", lib_dir.display());
    println!("cargo::metadata=lib_dir={}", lib_dir.display());
    println!("cargo::metadata=link_arg={link_arg}");
    println!("cargo::rustc-link-arg={link_arg}");

    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/shim.cpp");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        // libtorch's headers are not warning-free, and -isystem would hide ours too.
        .warnings(false)
        .include(&include_dir)
        .include(include_dir.join("torch/csrc/api/include"))
        .file("src/shim.cpp")
        .compile("orfeas_torch_shim");

    println!("cargo::rustc-link-search=native={}", lib_dir.display());
    for lib in ["torch_cpu", "c10"] {
        println!("cargo::rustc-link-lib={lib}");
    }
    Ok(())
}

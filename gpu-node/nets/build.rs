//! Gives this package's binaries and tests the run-time path to libtorch
//! (see `orfeas-torch`'s build script, which words the linker argument).

fn main() -> Result<(), std::env::VarError> {
    println!("cargo::rustc-link-arg={}", std::env::var("DEP_ORFEAS_TORCH_LINK_ARG")?);
    println!("cargo::rerun-if-changed=build.rs");
    Ok(())
}

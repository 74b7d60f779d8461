//! What the host offers to components: WASI 0.2 and 0.3, `wasi:http` and `spin:variables`.

use super::instance::Host;
use super::variables;
use anyhow::Context;
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};
use wasmtime_wasi_http::handler::ProxyPre;
use wasmtime_wasi_http::p3::bindings::ServicePre;

/// Links a component; the error names the import that this host lacks.
pub(crate) fn link(engine: &Engine, component: &Component) -> anyhow::Result<ProxyPre<Host>> {
    let linker = linker(engine).map_err(anyhow::Error::from).context("cannot set up the linker")?;
    let pre = linker
        .instantiate_pre(component)
        .map_err(anyhow::Error::from)
        .context("the component needs something that this host does not offer")?;
    let pre = ServicePre::new(pre)
        .map_err(anyhow::Error::from)
        .context("the component does not export wasi:http/handler@0.3.0")?;
    Ok(ProxyPre::P3(pre))
}

fn linker(engine: &Engine) -> wasmtime::Result<Linker<Host>> {
    let mut linker = Linker::new(engine);
    // Rust's standard library for wasm32-wasip2 imports WASI 0.2.
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi::p3::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    variables::add_to_linker(&mut linker)?;
    Ok(linker)
}

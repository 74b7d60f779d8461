//! `spin:variables`: answers a component's questions for its variables.

use super::instance::Host;
use wasmtime::component::{ComponentType, Lift, Linker, Lower};

/// `spin:variables/variables.error`.
#[derive(ComponentType, Lower, Lift, Clone, Debug)]
#[component(variant)]
enum VariableError {
    #[component(name = "invalid-name")]
    InvalidName(String),
    #[component(name = "undefined")]
    Undefined(String),
    #[component(name = "provider")]
    Provider(String),
    #[component(name = "other")]
    Other(String),
}

pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.instance("spin:variables/variables@3.0.0")?.func_wrap_concurrent(
        "get",
        |accessor, (name,): (String,)| {
            let value = accessor.with(|mut access| access.get().variable(&name).map(str::to_owned));
            Box::pin(async move { Ok((value.ok_or_else(|| unknown(name)),)) })
        },
    )
}

fn unknown(name: String) -> VariableError {
    let valid = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if valid && !name.is_empty() { VariableError::Undefined(name) } else { VariableError::InvalidName(name) }
}

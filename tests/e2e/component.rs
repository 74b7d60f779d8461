//! What the component asks of its host.

use orfeas_tests::stack;
use wasmparser::{Parser, Payload};

#[test]
fn the_component_imports_only_wasi_and_spin_variables() {
    let bytes = std::fs::read(stack::component()).unwrap();
    let mut depth = 0;
    let mut imports = Vec::new();
    for payload in Parser::new(0).parse_all(&bytes) {
        match payload.unwrap() {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(section) if depth == 0 => {
                imports.extend(section.into_iter().map(|import| import.unwrap().name.name.to_owned()));
            }
            _ => {}
        }
    }
    println!("{}", imports.join("\n"));
    assert!(!imports.is_empty());
    for import in &imports {
        let (interface, version) = import.split_once('@').unwrap_or((import, ""));
        let wasi =
            interface.starts_with("wasi:") && (version.starts_with("0.2.") || version.starts_with("0.3."));
        assert!(wasi || interface == "spin:variables/variables", "{import}");
    }
}

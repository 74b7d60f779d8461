//! Rules about dependencies that no compiler checks: who may import whom, and what must stay out.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::setup::wasm;
use crate::workspace::Workspace;

/// What a crate of the workspace may use.
struct Layer {
    package: &'static str,
    /// Crates of this workspace that it may depend on, apart from its tests.
    may_use: &'static [&'static str],
    /// Crates that must not be anywhere below it.
    never_reaches: &'static [&'static str],
}

const TORCH: &[&str] = &["tch", "torch-sys"];
const PURE: &[&str] = &["tch", "torch-sys", "tokio", "async-nats", "wasmtime", "hyper"];

/// The imports of ARCHITECTURE.md, as data.
const LAYERS: &[Layer] = &[
    Layer { package: "orfeas-protocol", may_use: &[], never_reaches: PURE },
    Layer { package: "orfeas-intake", may_use: &["orfeas-protocol"], never_reaches: PURE },
    Layer {
        package: "orfeas-traces",
        may_use: &[],
        never_reaches: &["tch", "torch-sys", "async-nats", "wasmtime"],
    },
    Layer { package: "orfeas-edge-nats", may_use: &[], never_reaches: PURE },
    Layer {
        package: "orfeas-gateway",
        may_use: &["orfeas-protocol", "orfeas-intake", "orfeas-edge-nats"],
        never_reaches: PURE,
    },
    Layer {
        package: "orfeas-edge",
        may_use: &["orfeas-protocol", "orfeas-traces"],
        never_reaches: &["tch", "torch-sys", "async-nats"],
    },
    Layer { package: "orfeas-edge-test-guest", may_use: &[], never_reaches: PURE },
    Layer { package: "orfeas-torch", may_use: &[], never_reaches: &["async-nats", "wasmtime", "hyper"] },
    Layer {
        package: "orfeas-nets",
        may_use: &["orfeas-torch"],
        never_reaches: &["async-nats", "wasmtime", "hyper"],
    },
    Layer { package: "orfeas-geometry", may_use: &[], never_reaches: PURE },
    Layer {
        package: "orfeas-node",
        may_use: &[
            "orfeas-protocol",
            "orfeas-intake",
            "orfeas-traces",
            "orfeas-torch",
            "orfeas-nets",
            "orfeas-geometry",
        ],
        never_reaches: &["wasmtime", "spin-sdk"],
    },
    Layer { package: "orfeas-tests", may_use: &["orfeas-protocol", "orfeas-traces"], never_reaches: TORCH },
    Layer { package: "orfeas-xtask", may_use: &[], never_reaches: PURE },
];

/// A wake-up across the component's tasks traps in the host, so the feature that sends one is banned.
const GUEST_RUNTIME: &str = "wit-bindgen";
const BANNED_FEATURE: &str = "inter-task-wakeup";

/// Checks all rules and reports every violation.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let metadata = metadata(workspace)?;
    let mut violations = Vec::new();
    for package in &metadata.packages {
        match LAYERS.iter().find(|layer| layer.package == package.name) {
            Some(layer) => violations.extend(import_violations(layer, package, &metadata)),
            None => violations.push(format!(
                "{} has no layer: add it to infra/xtask/src/tree.rs and to ARCHITECTURE.md",
                package.name
            )),
        }
    }
    for layer in LAYERS {
        let listing = tree(workspace, layer.package, None, "{lib}")?;
        let below: BTreeSet<String> = listing.lines().map(|line| line.replace('_', "-")).collect();
        for name in layer.never_reaches {
            if below.contains(*name) {
                violations.push(format!("{} reaches {name}", layer.package));
            }
        }
    }
    let listing = tree(workspace, "orfeas-gateway", Some(wasm::TARGET), "{p} {f}")?;
    if enables(&listing, GUEST_RUNTIME, BANNED_FEATURE) {
        violations.push(format!("orfeas-gateway enables {GUEST_RUNTIME}'s feature {BANNED_FEATURE}"));
    }
    ensure!(violations.is_empty(), "dependency rules are broken:\n  - {}", violations.join("\n  - "));
    Ok(())
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `None` for a normal one.
    kind: Option<String>,
}

fn metadata(workspace: &Workspace) -> Result<Metadata> {
    let output = workspace
        .cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .context("run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("parse cargo metadata")
}

/// The packages below one, a line each, with what its tests use left out.
fn tree(workspace: &Workspace, package: &str, target: Option<&str>, format: &str) -> Result<String> {
    let mut cargo = workspace.cargo();
    cargo.args(["tree", "--package", package, "--edges", "normal", "--prefix", "none"]);
    cargo.args(["--format", format]);
    if let Some(target) = target {
        cargo.args(["--target", target]);
    }
    let output = cargo.output().context("run cargo tree")?;
    if !output.status.success() {
        bail!("cargo tree for {package}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn import_violations(layer: &Layer, package: &Package, metadata: &Metadata) -> Vec<String> {
    package
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind.as_deref() != Some("dev"))
        .filter(|dependency| metadata.packages.iter().any(|ours| ours.name == dependency.name))
        .filter(|dependency| !layer.may_use.contains(&dependency.name.as_str()))
        .map(|dependency| format!("{} must not import {}", package.name, dependency.name))
        .collect()
}

/// Whether a listing of lines `<name> v<version> <feature>,<feature>` has the feature.
fn enables(listing: &str, package: &str, feature: &str) -> bool {
    listing.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some(package)
            && words.skip(1).any(|word| word.split(',').any(|enabled| enabled == feature))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn banned_feature_is_seen_in_any_version_of_its_package() {
        let listing = "orfeas-gateway v0.1.0 (/src/edge/gateway) \n\
                       wit-bindgen v0.46.0 \n\
                       wit-bindgen v0.57.1 async,inter-task-wakeup,macros\n";
        assert!(enables(listing, "wit-bindgen", "inter-task-wakeup"));
        assert!(!enables(listing, "wit-bindgen", "inter-task"));
        assert!(!enables(listing, "wit-bindgen-rt", "inter-task-wakeup"));
    }

    #[test]
    fn import_outside_the_layer_is_a_violation_unless_only_tests_use_it() {
        let metadata: Metadata = serde_json::from_str(
            r#"{"packages":[
                {"name":"orfeas-intake","dependencies":[
                    {"name":"orfeas-protocol","kind":null},
                    {"name":"orfeas-node","kind":null},
                    {"name":"orfeas-geometry","kind":"dev"},
                    {"name":"serde","kind":null}]},
                {"name":"orfeas-protocol","dependencies":[]},
                {"name":"orfeas-node","dependencies":[]},
                {"name":"orfeas-geometry","dependencies":[]}]}"#,
        )
        .unwrap();
        let layer = LAYERS.iter().find(|layer| layer.package == "orfeas-intake").unwrap();
        assert_eq!(
            import_violations(layer, &metadata.packages[0], &metadata),
            ["orfeas-intake must not import orfeas-node"]
        );
    }

    #[test]
    fn layers_form_an_order_without_cycles() {
        for (index, layer) in LAYERS.iter().enumerate() {
            for used in layer.may_use {
                let position = LAYERS.iter().position(|other| other.package == *used);
                assert!(position.is_some_and(|position| position < index), "{} uses {used}", layer.package);
            }
        }
    }
}

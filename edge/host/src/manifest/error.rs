//! Why a manifest cannot be run. Each message names the key or the value to change.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    #[error("cannot read manifest {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot parse manifest {path}")]
    Parse { path: PathBuf, source: Box<toml::de::Error> },
    #[error("spin_manifest_version is {found}, only version 2 is supported")]
    Version { found: u32 },
    #[error("the manifest has no [[trigger.http]]")]
    NoTrigger,
    #[error("{key} is not supported by this host; run the application with Spin, or remove the key")]
    Unsupported { key: String },
    #[error("route {route:?} names component {component:?}, which the manifest does not have")]
    UnknownComponent { route: String, component: String },
    #[error("route {route:?} is invalid: {reason}")]
    Route { route: String, reason: &'static str },
    #[error("routes {first:?} and {second:?} match the same paths")]
    DuplicateRoute { first: String, second: String },
    #[error("endpoint {route:?} of component {component:?} has class {class:?}; expected one of {expected}")]
    Class { component: String, route: String, class: String, expected: &'static str },
    #[error("endpoint {route:?} of component {component:?} has an invalid method {method:?}")]
    Method { component: String, route: String, method: String },
    #[error("template {template:?} has \"{{{{\" without \"}}}}\"")]
    UnclosedTemplate { template: String },
    #[error("template {template:?} names variable {name:?}, which [variables] does not have")]
    UnknownVariable { template: String, name: String },
    #[error(
        "variable name {name:?} is invalid: expected lower-case letters, digits and single underscores, starting with a letter"
    )]
    VariableName { name: String },
    #[error("variable {name:?} must have either a default or `required = true`")]
    VariableShape { name: String },
    #[error("--variable {name:?} is not declared in [variables]")]
    UndeclaredVariable { name: String },
    #[error(
        "no value for required variable(s) {names}: pass --variable NAME=VALUE or set SPIN_VARIABLE_<NAME>"
    )]
    MissingVariables { names: String },
    #[error("allowed_outbound_hosts entry {entry:?} is invalid: {reason}")]
    OutboundHost { entry: String, reason: &'static str },
    #[error("files source {path} of component {component:?} is not a readable folder")]
    MountSource { component: String, path: PathBuf },
    #[error("files destination {destination:?} of component {component:?} must be an absolute path")]
    MountDestination { component: String, destination: String },
    #[error("--component names {id:?}, which the manifest does not have")]
    UnknownOverride { id: String },
    #[error("--component FILE needs an id (ID=FILE) as the manifest has {count} components")]
    AmbiguousOverride { count: usize },
}

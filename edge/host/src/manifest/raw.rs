//! `spin.toml` as it is written: Spin manifest v2, every key that Spin knows.
//!
//! Keys that Spin does not know are errors here (serde). Keys that Spin knows but this host
//! does not offer are read as [`Unsupported`], so that [`super::resolve`] can refuse them by
//! name instead of running a component in an environment that it does not expect.

use serde::Deserialize;
use std::collections::BTreeMap;

/// A key whose mere presence is an error, or is ignored, whatever its value.
pub(crate) type Unsupported = Option<toml::Value>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawManifest {
    pub(crate) spin_manifest_version: u32,
    pub(crate) application: RawApplication,
    #[serde(default)]
    pub(crate) variables: BTreeMap<String, RawVariable>,
    pub(crate) trigger: RawTriggers,
    #[serde(default)]
    pub(crate) component: BTreeMap<String, RawComponent>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "descriptive keys are accepted and have no effect at run time")]
pub(crate) struct RawApplication {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) version: String,
    description: Option<String>,
    authors: Option<Vec<String>>,
    targets: Option<toml::Value>,
    pub(crate) trigger: Unsupported,
    tool: Option<toml::Table>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "`description` is for readers; `secret` needs no treatment as values are never printed"
)]
pub(crate) struct RawVariable {
    description: Option<String>,
    #[serde(default)]
    pub(crate) required: bool,
    pub(crate) default: Option<String>,
    #[serde(default)]
    secret: bool,
}

/// Only HTTP triggers: a trigger of another kind is an unknown field.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawTriggers {
    #[serde(default)]
    pub(crate) http: Vec<RawHttpTrigger>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "`id` names a trigger for Spin's own tools")]
pub(crate) struct RawHttpTrigger {
    id: Option<String>,
    /// A pattern; Spin's `{ private = true }` form is refused.
    pub(crate) route: toml::Value,
    /// A component's id; Spin's inline form is refused.
    pub(crate) component: toml::Value,
    pub(crate) executor: Option<toml::Table>,
    pub(crate) components: Unsupported,
    pub(crate) dependencies: Unsupported,
    pub(crate) static_response: Unsupported,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "build-time and descriptive keys are accepted and have no effect at run time")]
pub(crate) struct RawComponent {
    /// A path; Spin's URL and registry forms are refused.
    pub(crate) source: toml::Value,
    description: Option<String>,
    #[serde(default)]
    pub(crate) variables: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) environment: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) files: Vec<RawMount>,
    #[serde(default)]
    pub(crate) exclude_files: Vec<String>,
    #[serde(default)]
    pub(crate) allowed_outbound_hosts: Vec<String>,
    #[serde(default)]
    pub(crate) allowed_http_hosts: Vec<String>,
    #[serde(default)]
    pub(crate) key_value_stores: Vec<String>,
    #[serde(default)]
    pub(crate) sqlite_databases: Vec<String>,
    #[serde(default)]
    pub(crate) ai_models: Vec<String>,
    targets: Option<toml::Value>,
    build: Option<toml::Value>,
    #[serde(default)]
    pub(crate) tool: RawTools,
    pub(crate) dependencies_inherit_configuration: Unsupported,
    pub(crate) dependencies: Unsupported,
    pub(crate) profile: Unsupported,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum RawMount {
    /// A glob; refused, as it needs a copy of the matching files.
    Pattern(#[expect(dead_code, reason = "its presence is all that counts")] String),
    Placement {
        source: String,
        destination: String,
    },
}

/// `[component.X.tool]`: Spin leaves these tables to other programs; ours is `orfeas-edge`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct RawTools {
    #[serde(rename = "orfeas-edge")]
    pub(crate) orfeas_edge: Option<RawEdgeTool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawEdgeTool {
    #[serde(default)]
    pub(crate) endpoints: Vec<RawEndpoint>,
}

/// One line of the endpoint table: a metrics label and, optionally, a class of limits.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawEndpoint {
    pub(crate) route: String,
    pub(crate) method: Option<String>,
    pub(crate) class: Option<String>,
}

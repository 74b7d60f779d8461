//! From the written manifest to what the host runs: everything checked, nothing left to templates.

use super::raw::{RawComponent, RawEndpoint, RawHttpTrigger, RawManifest, RawMount};
use super::variables::{self, VariableSources};
use super::{ManifestError, template};
use crate::class::RequestClass;
use crate::outbound::AllowList;
use crate::route::{RoutePattern, RouteTable};
use http::Method;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// An application, ready to run.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) name: String,
    /// The components that at least one route leads to.
    pub(crate) components: Vec<ComponentSpec>,
    /// Routes to indices in `components`.
    pub(crate) routes: RouteTable<usize>,
}

/// One component and what it may use.
#[derive(Debug)]
pub(crate) struct ComponentSpec {
    pub(crate) id: String,
    pub(crate) source: PathBuf,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) outbound: AllowList,
    /// What `spin:variables` answers.
    pub(crate) variables: BTreeMap<String, String>,
    /// `[[component.X.tool.orfeas-edge.endpoints]]`.
    pub(crate) endpoints: RouteTable<Endpoint>,
}

/// A folder that the component can read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) source: PathBuf,
    pub(crate) destination: String,
}

/// One line of a component's endpoint table.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) method: Option<Method>,
    pub(crate) class: Option<RequestClass>,
}

/// Reads and resolves the manifest at `path`; `overrides` are `--component [ID=]FILE` values.
pub(crate) fn load(
    path: &Path,
    sources: &VariableSources<'_>,
    overrides: &[String],
) -> Result<App, ManifestError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ManifestError::Read { path: path.to_owned(), source })?;
    let raw: RawManifest = toml::from_str(&text)
        .map_err(|source| ManifestError::Parse { path: path.to_owned(), source: Box::new(source) })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    resolve(raw, folder, sources, overrides)
}

fn resolve(
    raw: RawManifest,
    folder: &Path,
    sources: &VariableSources<'_>,
    overrides: &[String],
) -> Result<App, ManifestError> {
    if raw.spin_manifest_version != 2 {
        return Err(ManifestError::Version { found: raw.spin_manifest_version });
    }
    refuse(raw.application.trigger.is_some(), || "[application.trigger]".to_owned())?;
    if raw.trigger.http.is_empty() {
        return Err(ManifestError::NoTrigger);
    }
    let values = variables::resolve(&raw.variables, sources)?;
    let mut sources_overridden = source_overrides(overrides, &raw.component)?;

    let mut components: Vec<ComponentSpec> = Vec::new();
    let mut routes = Vec::new();
    for trigger in &raw.trigger.http {
        let (pattern, id) = read_trigger(trigger)?;
        let index = match components.iter().position(|component| component.id == id) {
            Some(index) => index,
            None => {
                let component = raw.component.get(&id).ok_or_else(|| ManifestError::UnknownComponent {
                    route: pattern.to_string(),
                    component: id.clone(),
                })?;
                let source = sources_overridden.remove(&id);
                components.push(resolve_component(&id, component, folder, &values, source)?);
                components.len() - 1
            }
        };
        routes.push((pattern, index));
    }
    let routes = RouteTable::new(routes);
    if let Some((first, second)) = routes.duplicate() {
        return Err(ManifestError::DuplicateRoute { first: first.to_string(), second: second.to_string() });
    }
    Ok(App { name: raw.application.name, components, routes })
}

fn read_trigger(trigger: &RawHttpTrigger) -> Result<(RoutePattern, String), ManifestError> {
    let route = trigger.route.as_str().ok_or_else(|| unsupported("a private route"))?;
    let pattern = RoutePattern::parse(route)
        .map_err(|reason| ManifestError::Route { route: route.to_owned(), reason })?;
    let http_executor = trigger.executor.as_ref().is_none_or(|executor| {
        executor.len() == 1 && executor.get("type").and_then(toml::Value::as_str) == Some("http")
    });
    for (present, key) in [
        (!http_executor, "executor"),
        (trigger.components.is_some(), "components"),
        (trigger.dependencies.is_some(), "dependencies"),
        (trigger.static_response.is_some(), "static_response"),
    ] {
        refuse(present, || format!("`{key}` of the trigger for {route:?}"))?;
    }
    let component = trigger.component.as_str().ok_or_else(|| unsupported("an inline component"))?;
    Ok((pattern, component.to_owned()))
}

fn resolve_component(
    id: &str,
    raw: &RawComponent,
    folder: &Path,
    values: &BTreeMap<String, String>,
    source: Option<PathBuf>,
) -> Result<ComponentSpec, ManifestError> {
    for (present, key) in [
        (!raw.exclude_files.is_empty(), "exclude_files"),
        (!raw.allowed_http_hosts.is_empty(), "allowed_http_hosts"),
        (!raw.key_value_stores.is_empty(), "key_value_stores"),
        (!raw.sqlite_databases.is_empty(), "sqlite_databases"),
        (!raw.ai_models.is_empty(), "ai_models"),
        (raw.dependencies_inherit_configuration.is_some(), "dependencies_inherit_configuration"),
        (raw.dependencies.is_some(), "dependencies"),
        (raw.profile.is_some(), "profile"),
    ] {
        refuse(present, || format!("`{key}` of component {id:?}"))?;
    }
    let source = match (source, raw.source.as_str()) {
        (Some(path), _) => path,
        (None, Some(path)) => folder.join(path),
        (None, None) => return Err(unsupported(format!("a remote `source` of component {id:?}"))),
    };
    let render = |text: &str| template::render(text, |name| values.get(name).map(String::as_str));

    let mut outbound = AllowList::default();
    for entry in &raw.allowed_outbound_hosts {
        let entry = render(entry)?;
        outbound
            .add(&entry)
            .map_err(|reason| ManifestError::OutboundHost { entry: entry.clone(), reason })?;
    }
    let mut component_variables = BTreeMap::new();
    for (name, text) in &raw.variables {
        variables::check_name(name)?;
        component_variables.insert(name.clone(), render(text)?);
    }
    let endpoints = raw.tool.orfeas_edge.iter().flat_map(|tool| &tool.endpoints);
    Ok(ComponentSpec {
        id: id.to_owned(),
        source,
        environment: raw.environment.clone(),
        mounts: raw.files.iter().map(|mount| resolve_mount(id, mount, folder)).collect::<Result<_, _>>()?,
        outbound,
        variables: component_variables,
        endpoints: RouteTable::new(
            endpoints.map(|endpoint| resolve_endpoint(id, endpoint)).collect::<Result<_, _>>()?,
        ),
    })
}

fn resolve_mount(id: &str, mount: &RawMount, folder: &Path) -> Result<Mount, ManifestError> {
    let RawMount::Placement { source, destination } = mount else {
        return Err(unsupported(format!("a glob in `files` of component {id:?}")));
    };
    let source = folder.join(source);
    if std::fs::read_dir(&source).is_err() {
        return Err(ManifestError::MountSource { component: id.to_owned(), path: source });
    }
    if !destination.starts_with('/') {
        let destination = destination.clone();
        return Err(ManifestError::MountDestination { component: id.to_owned(), destination });
    }
    Ok(Mount { source, destination: destination.clone() })
}

fn resolve_endpoint(id: &str, raw: &RawEndpoint) -> Result<(RoutePattern, Endpoint), ManifestError> {
    let pattern = RoutePattern::parse(&raw.route)
        .map_err(|reason| ManifestError::Route { route: raw.route.clone(), reason })?;
    let method = match &raw.method {
        Some(text) => Some(text.parse::<Method>().map_err(|_| ManifestError::Method {
            component: id.to_owned(),
            route: raw.route.clone(),
            method: text.clone(),
        })?),
        None => None,
    };
    let class = match &raw.class {
        Some(name) => Some(RequestClass::parse(name).ok_or_else(|| ManifestError::Class {
            component: id.to_owned(),
            route: raw.route.clone(),
            class: name.clone(),
            expected: RequestClass::NAMES,
        })?),
        None => None,
    };
    Ok((pattern, Endpoint { method, class }))
}

/// Reads `--component` values: `FILE` where there is one component, else `ID=FILE`.
fn source_overrides(
    overrides: &[String],
    components: &BTreeMap<String, RawComponent>,
) -> Result<BTreeMap<String, PathBuf>, ManifestError> {
    let mut sources = BTreeMap::new();
    for text in overrides {
        let (id, file) = match text.split_once('=') {
            Some((id, file)) if components.contains_key(id) => (id.to_owned(), file),
            Some((id, _)) if !id.contains('/') => {
                return Err(ManifestError::UnknownOverride { id: id.to_owned() });
            }
            _ => match components.keys().next() {
                Some(only) if components.len() == 1 => (only.clone(), text.as_str()),
                _ => return Err(ManifestError::AmbiguousOverride { count: components.len() }),
            },
        };
        sources.insert(id, PathBuf::from(file));
    }
    Ok(sources)
}

fn unsupported(key: impl Into<String>) -> ManifestError {
    ManifestError::Unsupported { key: key.into() }
}

fn refuse(present: bool, key: impl FnOnce() -> String) -> Result<(), ManifestError> {
    if present { Err(unsupported(key())) } else { Ok(()) }
}

#[cfg(test)]
mod tests;

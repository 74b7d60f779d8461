use super::*;

const MINIMAL: &str = r#"
spin_manifest_version = 2
[application]
name = "app"
version = "1.0.0"
[variables]
nats_address = { default = "127.0.0.1:4222" }
auth = { required = true }
[[trigger.http]]
route = "/..."
component = "gateway"
[component.gateway]
source = "gateway.wasm"
allowed_outbound_hosts = ["tcp://{{ nats_address }}"]
[component.gateway.variables]
nats = "nats://{{ nats_address }}"
auth = "{{ auth }}"
[component.gateway.build]
command = "cargo build"
"#;

fn load_text(text: &str) -> Result<App, ManifestError> {
    load_with(text, &[])
}

fn load_with(text: &str, overrides: &[&str]) -> Result<App, ManifestError> {
    let raw = toml::from_str(text).unwrap();
    let flags = BTreeMap::from([("auth".to_owned(), "required".to_owned())]);
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    let sources = VariableSources { flags: &flags, environment: &|_| None };
    resolve(raw, Path::new("/app"), &sources, &overrides)
}

#[test]
fn templates_are_filled_from_the_variables() {
    let app = load_text(MINIMAL).unwrap();
    let gateway = &app.components[0];
    assert_eq!(app.name, "app");
    assert_eq!(gateway.source, Path::new("/app/gateway.wasm"));
    assert_eq!(gateway.variables["nats"], "nats://127.0.0.1:4222");
    assert_eq!(gateway.variables["auth"], "required");
    assert!(gateway.outbound.allows("127.0.0.1:4222".parse().unwrap()));
    assert!(!gateway.outbound.allows("127.0.0.1:4223".parse().unwrap()));
}

#[test]
fn a_component_override_replaces_the_source() {
    let app = load_with(MINIMAL, &["other.wasm"]).unwrap();
    assert_eq!(app.components[0].source, Path::new("other.wasm"));
    let app = load_with(MINIMAL, &["gateway=x.wasm"]).unwrap();
    assert_eq!(app.components[0].source, Path::new("x.wasm"));
    assert!(matches!(load_with(MINIMAL, &["typo=x.wasm"]), Err(ManifestError::UnknownOverride { .. })));
}

#[test]
fn keys_that_this_host_does_not_offer_are_refused_by_name() {
    for (line, named) in [
        ("key_value_stores = ['default']", "key_value_stores"),
        ("sqlite_databases = ['default']", "sqlite_databases"),
        ("ai_models = ['m']", "ai_models"),
        ("exclude_files = ['x']", "exclude_files"),
        ("files = ['*.txt']", "glob"),
        ("dependencies = { 'a:b' = '1' }", "dependencies"),
    ] {
        let text = MINIMAL.replace("source = \"gateway.wasm\"", &format!("source = 'g.wasm'\n{line}"));
        let error = load_text(&text).unwrap_err();
        assert!(
            matches!(&error, ManifestError::Unsupported { key } if key.contains(named)),
            "{line}: {error}"
        );
    }
}

#[test]
fn keys_that_spin_does_not_know_are_refused() {
    for (from, to) in [
        ("name = \"app\"", "name = \"app\"\nnmae = 1"),
        ("source = \"gateway.wasm\"", "source = 'g.wasm'\nmemory = 1"),
        ("[[trigger.http]]", "[[trigger.redis]]\nchannel = 'x'\n[[trigger.http]]"),
        ("default = \"127.0.0.1:4222\"", "default = 'x', defualt = 'y'"),
    ] {
        let text = MINIMAL.replace(from, to);
        assert!(toml::from_str::<RawManifest>(&text).is_err(), "{to}");
    }
}

#[test]
fn a_route_to_an_unknown_component_is_refused() {
    let text = MINIMAL.replace("component = \"gateway\"", "component = \"gate\"");
    assert!(matches!(load_text(&text), Err(ManifestError::UnknownComponent { .. })));
}

#[test]
fn an_endpoint_table_gives_labels_and_classes() {
    let table = r#"
[component.gateway.tool.orfeas-edge]
endpoints = [
    { route = "/api/job/:id/events", method = "GET", class = "stream" },
    { route = "/api/job/:id" },
]
[component.gateway.tool.other]
anything = 1
"#;
    let app = load_text(&format!("{MINIMAL}{table}")).unwrap();
    let endpoints = &app.components[0].endpoints;
    let (pattern, _, endpoint) = endpoints.find("/api/job/7/events", |_| true).unwrap();
    assert_eq!((pattern.as_str(), endpoint.class), ("/api/job/:id/events", Some(RequestClass::Stream)));
    let text = format!("{MINIMAL}{}", table.replace("\"stream\"", "\"slow\""));
    assert!(matches!(load_text(&text), Err(ManifestError::Class { .. })));
}

#[test]
fn mounts_must_exist_and_land_on_absolute_paths() {
    let source = std::env::temp_dir();
    let with = |source: &str, destination: &str| {
        let files =
            format!("source = 'g.wasm'\nfiles = [{{ source = '{source}', destination = '{destination}' }}]");
        load_text(&MINIMAL.replace("source = \"gateway.wasm\"", &files))
    };
    let app = with(source.to_str().unwrap(), "/www").unwrap();
    assert_eq!(app.components[0].mounts, [Mount { source: source.clone(), destination: "/www".into() }]);
    assert!(matches!(with("/nowhere/at/all", "/www"), Err(ManifestError::MountSource { .. })));
    assert!(matches!(with(source.to_str().unwrap(), "www"), Err(ManifestError::MountDestination { .. })));
}

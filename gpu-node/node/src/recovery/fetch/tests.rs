use tempfile::TempDir;

use super::*;

/// A mirror with one family of two files, and an empty models folder.
fn mirror() -> (TempDir, Mirror) {
    let root = tempfile::tempdir().unwrap();
    let family = root.path().join("source/toy");
    fs::create_dir_all(family.join("vae")).unwrap();
    fs::write(family.join("config.yaml"), "a: 1").unwrap();
    fs::write(family.join("vae/model.safetensors"), vec![7; 3_000_000]).unwrap();
    let mirror = Mirror::new(root.path().join("source"), root.path().join("models"));
    (root, mirror)
}

fn write_sums(root: &TempDir, text: &str) {
    fs::write(root.path().join("source/toy").join(SUMS), text).unwrap();
}

fn sum(root: &TempDir, name: &str) -> String {
    let bytes = fs::read(root.path().join("source/toy").join(name)).unwrap();
    format!("{}  {name}\n", Sha256Digest::of(bytes))
}

/// What is in the models folder, hidden names included.
fn names_in(root: &TempDir) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(root.path().join("models"))
        .map(|entries| {
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        })
        .unwrap_or_default();
    names.sort();
    names
}

#[test]
fn a_folder_is_brought_into_place_whole() {
    let (root, mirror) = mirror();
    write_sums(&root, &(sum(&root, "config.yaml") + &sum(&root, "vae/model.safetensors")));
    let fetched = mirror.fetch("toy").unwrap();
    assert_eq!((fetched.files, fetched.bytes), (2, 3_000_004));
    assert_eq!(fs::read_to_string(fetched.folder.join("config.yaml")).unwrap(), "a: 1");
    assert_eq!(fs::read(fetched.folder.join("vae/model.safetensors")).unwrap().len(), 3_000_000);
    assert_eq!(names_in(&root), [".fetched", "toy"]);
}

#[test]
fn a_file_that_differs_from_the_list_is_refused_and_nothing_is_changed() {
    let (root, mirror) = mirror();
    let in_place = mirror.fetch("toy").unwrap().folder.canonicalize().unwrap();
    write_sums(&root, &sum(&root, "config.yaml"));
    fs::write(root.path().join("source/toy/config.yaml"), "a: 2").unwrap();
    assert!(matches!(mirror.fetch("toy"), Err(FetchError::Digest { .. })));
    let folder = root.path().join("models/toy");
    assert_eq!(folder.canonicalize().unwrap(), in_place);
    assert_eq!(fs::read_to_string(folder.join("config.yaml")).unwrap(), "a: 1");
    let staged = fs::read_dir(root.path().join("models/.fetched")).unwrap().count();
    assert_eq!(staged, 1, "no staging folder stays behind");
}

#[test]
fn a_file_that_the_list_names_and_the_mirror_lacks_is_refused() {
    let (root, mirror) = mirror();
    let digest = Sha256Digest::of("x");
    write_sums(&root, &format!("{digest}  missing.bin\n"));
    assert!(matches!(mirror.fetch("toy"), Err(FetchError::NotThere(path)) if path.ends_with("missing.bin")));
    assert!(matches!(mirror.fetch("other"), Err(FetchError::NotThere(_))));
    assert!(names_in(&root).is_empty());
}

#[test]
fn a_list_cannot_name_files_outside_of_its_folder() {
    let (root, mirror) = mirror();
    let digest = Sha256Digest::of("x");
    for name in ["../other", "/etc/passwd", "a/../../b", ""] {
        write_sums(&root, &format!("{digest}  {name}\n"));
        assert!(matches!(mirror.fetch("toy"), Err(FetchError::Sums { line: 1, .. })), "{name}");
    }
}

#[test]
fn a_newer_copy_replaces_the_link_and_a_real_folder_is_moved_aside() {
    let (root, mirror) = mirror();
    fs::create_dir_all(root.path().join("models/toy")).unwrap();
    fs::write(root.path().join("models/toy/mine"), "kept").unwrap();
    mirror.fetch("toy").unwrap();
    assert_eq!(fs::read_to_string(root.path().join("models/.toy.replaced/mine")).unwrap(), "kept");
    fs::write(root.path().join("source/toy/config.yaml"), "a: 2").unwrap();
    let fetched = mirror.fetch("toy").unwrap();
    assert_eq!(fs::read_to_string(fetched.folder.join("config.yaml")).unwrap(), "a: 2");
    let kept = fs::read_dir(root.path().join("models/.fetched")).unwrap().count();
    assert_eq!(kept, 1, "the older copy is gone");
}

#[test]
fn a_copy_that_went_bad_in_place_is_replaced_by_the_same_content() {
    let (_root, mirror) = mirror();
    let folder = mirror.fetch("toy").unwrap().folder;
    fs::write(folder.join("config.yaml"), "spoilt").unwrap();
    mirror.fetch("toy").unwrap();
    assert_eq!(fs::read_to_string(folder.join("config.yaml")).unwrap(), "a: 1");
}

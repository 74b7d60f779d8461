//! A model folder is replaced ten times while a node works: every job ends well, and on one version.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::join_all;
use image::{ImageFormat, Rgba, RgbaImage};
use orfeas_nets::config::Config;
use orfeas_nets::synthetic::Synthetic;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::harness::{Caller, PATIENCE, Program, Server};

const REPLACEMENTS: usize = 10;
/// Jobs in flight: one runs, and one waits for the device. A third would wait for longer than a test's patience where
/// the node is compiled without optimisation.
const CALLERS: usize = 2;
/// The same on each node, so that the same seed gives the same bytes.
const ARGUMENTS: [&str; 4] = ["--device", "cpu", "--threads", "1"];

const CONFIG: &str = "config.yaml";
const WEIGHTS: &str = "model.fp16.safetensors";

/// Where the node finds the family.
fn installed(models: &Path) -> PathBuf {
    models.join("hunyuan3d-2")
}

fn miniature() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../nets/tests/golden/mini_checkpoint")
}

/// Two folders in the published layout: the networks' miniature, and the same with other weights.
fn versions(root: &Path) -> [PathBuf; 2] {
    let folders = ["one", "other"].map(|name| root.join(name));
    for folder in &folders {
        fs::create_dir(folder).unwrap();
        fs::copy(miniature().join(CONFIG), folder.join(CONFIG)).unwrap();
    }
    let [one, other] = &folders;
    fs::copy(miniature().join(WEIGHTS), one.join(WEIGHTS)).unwrap();
    let config = Config::parse(&fs::read_to_string(one.join(CONFIG)).unwrap()).unwrap();
    Synthetic::of(&config).unwrap().write(&other.join(WEIGHTS), tch::Kind::Half, 5).unwrap();
    folders
}

/// Puts a copy of a folder in the place of the installed one. Between the two renames there is none, as there is when
/// an operator does it by hand.
fn install(models: &Path, version: &Path) {
    let (new, old) = (models.join("new"), models.join("old"));
    fs::create_dir(&new).unwrap();
    for file in [CONFIG, WEIGHTS] {
        fs::copy(version.join(file), new.join(file)).unwrap();
    }
    if installed(models).exists() {
        fs::rename(installed(models), &old).unwrap();
    }
    fs::rename(&new, installed(models)).unwrap();
    let _ = fs::remove_dir_all(&old);
}

/// A disc, cut out.
fn disc() -> Vec<u8> {
    let picture = RgbaImage::from_fn(96, 96, |x, y| {
        let inside = (x as f32 - 48.0).hypot(y as f32 - 48.0) < 30.0;
        Rgba([20, 160, 60, if inside { 255 } else { 0 }])
    });
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, ImageFormat::Png).unwrap();
    file.into_inner()
}

/// A job of the family from submission to result: the version that its record names, and the file.
async fn make(caller: &Caller) -> (String, Vec<u8>) {
    let options = json!({"model": "hunyuan3d-2", "quality": 5, "steps": 2, "texture": false, "target_faces": 2000, "seed": 11});
    let id = caller.submit_picture(options, disc()).await;
    let job: Value = caller.job_ended(&id).await;
    assert_eq!((&job["status"], &job["attempt"]), (&json!("completed"), &json!(1)), "{job}");
    let version = job["model"]["version"].as_str().unwrap_or_else(|| panic!("{job}"));
    (version.to_owned(), caller.result(&id).await.unwrap())
}

/// What a version makes on a node that has never seen another one.
async fn made_alone(version: &Path) -> (String, Vec<u8>) {
    let (server, models) = (Server::start().await, tempfile::tempdir().unwrap());
    install(models.path(), version);
    let _node = Program::serve(&server, models.path(), &ARGUMENTS);
    let caller = Caller::of(&server).await;
    caller.node_serves().await;
    make(&caller).await
}

#[tokio::test]
async fn jobs_succeed_on_one_version_each_while_their_folder_is_replaced_ten_times() {
    let root = tempfile::tempdir().unwrap();
    let versions = versions(root.path());
    let mut names = Vec::new();
    let mut expected = BTreeMap::new();
    for version in &versions {
        let (name, file) = made_alone(version).await;
        names.push(name.clone());
        expected.insert(name, file);
    }
    assert_ne!(expected[&names[0]], expected[&names[1]], "versions can be told apart by what they make");

    let (server, models) = (Server::start().await, tempfile::tempdir().unwrap());
    install(models.path(), &versions[0]);
    let _node = Program::serve(&server, models.path(), &ARGUMENTS);
    Caller::of(&server).await.node_serves().await;
    let is_over = AtomicBool::new(false);
    let (ended, mut made) = mpsc::unbounded_channel();
    let callers = (0..CALLERS).map(async |_| {
        let caller = Caller::of(&server).await;
        while !is_over.load(Ordering::Relaxed) {
            let (version, file) = make(&caller).await;
            assert!(expected.get(&version) == Some(&file), "a result of {version} is mixed");
            ended.send(version).unwrap();
        }
    });
    let replacing = async {
        // Each version has made something when the next one takes its place.
        for replacement in 0..=REPLACEMENTS {
            if replacement > 0 {
                install(models.path(), &versions[replacement % 2]);
            }
            let name = &names[replacement % 2];
            let serves = async { while made.recv().await.as_ref() != Some(name) {} };
            let serves = timeout(PATIENCE, serves).await;
            serves.unwrap_or_else(|_| panic!("replacement {replacement} does not serve"));
        }
        is_over.store(true, Ordering::Relaxed);
    };
    tokio::join!(join_all(callers), replacing);
}

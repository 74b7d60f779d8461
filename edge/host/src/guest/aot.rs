//! The cache of compiled components: compile once, then start in milliseconds.
//!
//! An entry is named by the component's SHA-256 and the engine's compatibility hash, and holds
//! the SHA-256 of the machine code before the machine code itself. What does not check out is
//! compiled again and replaced.
#![expect(unsafe_code, reason = "wasmtime cannot check machine code; see `deserialize`")]

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use wasmtime::Engine;
use wasmtime::component::Component;

const DIGEST_BYTES: usize = 32;

/// A folder of compiled components that nobody but this user can write to.
#[derive(Debug)]
pub(crate) struct AotCache {
    folder: PathBuf,
}

impl AotCache {
    /// Opens the cache, creating its folder; refuses one that others could write to.
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("cannot create cache folder {}", folder.display()))?;
        let metadata = std::fs::metadata(folder)
            .with_context(|| format!("cannot inspect cache folder {}", folder.display()))?;
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            bail!("cache folder {} belongs to another user", folder.display());
        }
        if metadata.mode() & 0o022 != 0 {
            bail!("cache folder {} can be written by other users; set its mode to 0700", folder.display());
        }
        Ok(Self { folder: folder.to_owned() })
    }

    /// Loads the component at `source`, compiling it if the cache has no sound entry for it.
    pub(crate) fn load(&self, engine: &Engine, source: &Path) -> anyhow::Result<Component> {
        let wasm = read(source)?;
        let path = self.folder.join(entry_name(engine, &wasm));
        match self.read_entry(engine, &path) {
            Ok(Some(component)) => return Ok(component),
            Ok(None) => {}
            Err(error) => tracing::warn!(
                entry = %path.display(),
                error = format!("{error:#}"),
                "recompiling: the cached component is unusable"
            ),
        }
        let code = precompile(engine, source, &wasm)?;
        if let Err(error) = self.write_entry(&path, &code) {
            let error = format!("{error:#}");
            tracing::warn!(entry = %path.display(), error, "cannot keep the compiled component");
        }
        deserialize(engine, &code)
    }

    fn read_entry(&self, engine: &Engine, path: &Path) -> anyhow::Result<Option<Component>> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let (digest, code) = bytes.split_at_checked(DIGEST_BYTES).context("it is truncated")?;
        if Sha256::digest(code).as_slice() != digest {
            bail!("its digest does not match");
        }
        deserialize(engine, code).map(Some)
    }

    /// Writes beside the entry and renames, so that a reader never sees half of it.
    fn write_entry(&self, path: &Path, code: &[u8]) -> anyhow::Result<()> {
        let partial = path.with_extension(format!("{}.partial", std::process::id()));
        let written = (|| {
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
            file.write_all(&Sha256::digest(code))?;
            file.write_all(code)?;
            file.sync_all()?;
            std::fs::rename(&partial, path)
        })();
        if written.is_err() {
            // Best effort: the folder may be full or gone, which is what is reported.
            let _ = std::fs::remove_file(&partial);
        }
        Ok(written?)
    }
}

/// Compiles the component at `source` without a cache.
pub(crate) fn compile(engine: &Engine, source: &Path) -> anyhow::Result<Component> {
    let wasm = read(source)?;
    Component::from_binary(engine, &wasm)
        .map_err(anyhow::Error::from)
        .with_context(|| format!("cannot compile component {}", source.display()))
}

fn read(source: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(source).with_context(|| format!("cannot read component {}", source.display()))
}

fn precompile(engine: &Engine, source: &Path, wasm: &[u8]) -> anyhow::Result<Vec<u8>> {
    let started = std::time::Instant::now();
    let code = engine
        .precompile_component(wasm)
        .map_err(anyhow::Error::from)
        .with_context(|| format!("cannot compile component {}", source.display()))?;
    let seconds = started.elapsed().as_secs_f64();
    tracing::info!(component = %source.display(), seconds, bytes = code.len(), "compiled component");
    Ok(code)
}

fn entry_name(engine: &Engine, wasm: &[u8]) -> String {
    // Wasmtime checks version and settings again when it loads the code, so a collision of this
    // short hash costs a recompilation and nothing else.
    let mut compatibility = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut compatibility);
    format!("{}-{:016x}.cwasm", hex(&Sha256::digest(wasm)), compatibility.finish())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn deserialize(engine: &Engine, code: &[u8]) -> anyhow::Result<Component> {
    // SAFETY: `code` must be unmodified output of `precompile_component`. It comes either straight
    // from that function or from an entry whose digest matched, in a folder that only this user
    // can write to (checked in `open`); whoever can forge an entry can replace this program, too.
    let component = unsafe { Component::deserialize(engine, code) };
    component.map_err(|error| anyhow::Error::from(error).context("cannot load compiled component"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::engine::{PoolLimits, start};

    /// The smallest component: its preamble.
    const EMPTY_COMPONENT: &[u8] = &[0, b'a', b's', b'm', 0x0d, 0, 1, 0];

    struct Scene {
        _folder: tempfile::TempDir,
        engine: Engine,
        cache: AotCache,
        source: PathBuf,
    }

    impl Scene {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let source = folder.path().join("empty.wasm");
            std::fs::write(&source, EMPTY_COMPONENT).unwrap();
            let cache = AotCache::open(&folder.path().join("cache")).unwrap();
            let engine = start(PoolLimits { instances: 1, memory_bytes: 1 << 20 }).unwrap();
            Self { _folder: folder, engine, cache, source }
        }

        fn entry(&self) -> PathBuf {
            let mut entries = std::fs::read_dir(&self.cache.folder).unwrap();
            entries.next().unwrap().unwrap().path()
        }

        fn load_cached(&self) -> anyhow::Result<Option<Component>> {
            self.cache.read_entry(&self.engine, &self.entry())
        }
    }

    #[test]
    fn the_second_load_comes_from_the_cache() {
        let scene = Scene::new();
        scene.cache.load(&scene.engine, &scene.source).unwrap();
        assert!(scene.load_cached().unwrap().is_some());
    }

    #[test]
    fn a_damaged_entry_is_recompiled_and_replaced() {
        let scene = Scene::new();
        scene.cache.load(&scene.engine, &scene.source).unwrap();
        let sound = std::fs::read(scene.entry()).unwrap();
        let mut flipped = sound.clone();
        flipped[sound.len() / 2] ^= 1;
        for damaged in [&[] as &[u8], &sound[..10], &sound[..sound.len() - 1], &flipped] {
            std::fs::write(scene.entry(), damaged).unwrap();
            assert!(scene.load_cached().is_err());
            scene.cache.load(&scene.engine, &scene.source).unwrap();
            assert_eq!(std::fs::read(scene.entry()).unwrap(), sound);
        }
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(AotCache::open(folder.path()).is_err());
    }
}

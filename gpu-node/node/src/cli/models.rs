//! `models`: which model folders there are, whether one can be used, and what the nodes that serve do with them.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use orfeas_nets::checkpoint::{Checkpoint, default_kind};
use orfeas_nets::footprint::{Footprint, Job};
use orfeas_nets::residence::Residence;
use orfeas_nets::volume::CPU_CHUNK_POINTS;
use tch::Device;

use super::convert::convert;
use super::model_commands::ModelTarget;
use crate::pipeline::background::network;
use crate::pipeline::models::{self, HUNYUAN_FAMILY};
use crate::service::ModelVerb;

/// What an operator must know before installing weights.
const LICENCE_NOTICE: &str = "\
The published Hunyuan3D-2 weights are not part of this program and not open source. Their licence, the Tencent Hunyuan \
3D 2.0 Community License, gives no rights in the European Union, the United Kingdom and South Korea, neither to use \
the weights nor their outputs; services with more than a million users a month need a licence of their own, and \
outputs may not be used to improve other models. Read it where you got the weights; keeping to it is up to you.";

#[derive(Debug, Args)]
pub(super) struct Models {
    #[command(subcommand)]
    action: Action,
    /// Where model folders are, each named as its family
    #[arg(long, env = "ORFEAS_MODELS", value_name = "DIR", global = true)]
    models: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Installs a model folder: checks it, and links it into the models folder
    Add {
        /// The folder, with config.yaml and model.fp16.safetensors
        folder: PathBuf,
    },
    /// Loads a model folder and says what is in it
    Check {
        /// The folder
        folder: PathBuf,
    },
    /// Converts a PyTorch file (.pth, .ckpt) to safetensors, without running what is in it
    Convert {
        /// The file
        file: PathBuf,
        /// The new file [default: beside it]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Shows the folder that each family would use
    List,
    /// Tells nodes to load a family's model
    Load(ModelTarget),
    /// Tells nodes to let go of a family's model, once its jobs have ended
    Unload(ModelTarget),
    /// Tells nodes to look at a family's folder now, and to use what is there
    Reload(ModelTarget),
}

impl Models {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let models = self.models.or_else(models::default_folder);
        match self.action {
            Action::Check { folder } => check(&folder),
            Action::Add { folder } => add(&folder, &models.context("no models folder: give --models")?),
            Action::Convert { file, output } => convert(&file, output),
            Action::List => list(models.as_deref()),
            Action::Load(target) => target.tell(ModelVerb::Load).await,
            Action::Unload(target) => target.tell(ModelVerb::Unload).await,
            Action::Reload(target) => target.tell(ModelVerb::Reload).await,
        }
    }
}

fn check(folder: &Path) -> anyhow::Result<()> {
    let model = Checkpoint::open(folder)?;
    let summary = model.summary();
    // Mapped, so that this checks every key and shape in a moment.
    model.load(Device::Cpu, default_kind(Device::Cpu))?;
    println!("{}: usable, version {}", folder.display(), model.fingerprint()?);
    println!("  weights      {} ({} bytes)", summary.weights.display(), summary.file_bytes);
    for (component, parameters) in &summary.parameters {
        println!("  {component:<12} {:.1} M parameters", *parameters as f64 / 1e6);
    }
    let types: Vec<&str> = summary.types.keys().map(String::as_str).collect();
    println!("  types        {}", types.join(", "));
    let job = Job { batch: 1, views: 1, views_at_once: 1, resolution: 256, chunk_points: CPU_CHUNK_POINTS };
    for (name, device) in [("cpu", Device::Cpu), ("accelerator", Device::Cuda(0))] {
        let kind = default_kind(device);
        let footprint = Footprint::of(&model, device, kind, &job);
        let gib = |residence| footprint.peak(residence) as f64 / f64::from(1 << 30);
        let (together, in_turn) = (gib(Residence::Together), gib(Residence::InTurn));
        println!("  memory       {name}, {kind:?}: about {together:.2} GiB; {in_turn:.2} GiB with offload");
    }
    println!("\n{LICENCE_NOTICE}");
    Ok(())
}

fn add(folder: &Path, models: &Path) -> anyhow::Result<()> {
    check(folder)?;
    let folder = folder.canonicalize().with_context(|| format!("cannot find {}", folder.display()))?;
    let link = models.join(HUNYUAN_FAMILY);
    if link.symlink_metadata().is_ok_and(|there| !there.is_symlink()) {
        bail!("{} is a folder: move it away first", link.display());
    }
    std::fs::create_dir_all(models).with_context(|| format!("cannot make {}", models.display()))?;
    // A new name first, then a rename: a node that looks meanwhile finds the old model or the new one.
    let new = models.join(format!(".{HUNYUAN_FAMILY}.new"));
    let _ = std::fs::remove_file(&new);
    let linked = std::os::unix::fs::symlink(&folder, &new).and_then(|()| std::fs::rename(&new, &link));
    linked.with_context(|| format!("cannot link {}", link.display()))?;
    println!("\n{} → {}", link.display(), folder.display());
    Ok(())
}

fn list(models: Option<&Path>) -> anyhow::Result<()> {
    println!("silhouette   needs no weights");
    match models::find(models, HUNYUAN_FAMILY) {
        Some(folder) => {
            let version = Checkpoint::open(&folder).and_then(|model| model.fingerprint());
            let version = version.unwrap_or_else(|error| format!("cannot be used: {error}"));
            println!("{HUNYUAN_FAMILY}   {version}   {}", folder.display());
        }
        None => println!("{HUNYUAN_FAMILY}   not installed"),
    }
    match network::find(models) {
        Some(file) => println!("background   {}", file.display()),
        None => println!("background   no network installed: by colour"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn miniature() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../nets/tests/golden/mini_checkpoint")
    }

    #[test]
    fn an_added_model_is_found_and_can_be_replaced() {
        let models = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            add(&miniature(), models.path()).unwrap();
            let found = models::find(Some(models.path()), HUNYUAN_FAMILY).unwrap();
            assert_eq!(found.canonicalize().unwrap(), miniature().canonicalize().unwrap());
        }
        assert_eq!(std::fs::read_dir(models.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_used_is_not_added() {
        let (models, empty) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert!(add(empty.path(), models.path()).is_err());
        assert_eq!(std::fs::read_dir(models.path()).unwrap().count(), 0);
        std::fs::create_dir(models.path().join(HUNYUAN_FAMILY)).unwrap();
        let error = add(&miniature(), models.path()).unwrap_err();
        assert!(error.to_string().contains("move it away"), "{error}");
    }
}

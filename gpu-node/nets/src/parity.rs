//! Compares the networks with reference results, tensor by tensor.
//!
//! A folder holds one safetensors file per case. Its tensors are `w.<key>` (the
//! weights under their state-dict keys), `in.*`, `mid.*` and `out*`; its header
//! holds the network's configuration. Sizes, seeds and depths are read from the
//! file, so that any folder of this structure runs.

mod dino;
mod dit;
mod picture;
mod pipeline;
mod sampling;
mod surface;
mod u2net;
mod vae;

use crate::Error;
use crate::weights::Prefixed;
use orfeas_torch::{WeightsFile, attempt};
use std::fmt;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

pub use surface::{SurfaceCase, surfaces};

/// Networks in `f32`.
const NETWORK: f64 = 1e-4;

/// The comparison of one tensor.
#[derive(Debug, Clone)]
pub struct Row {
    /// The file, without its ending.
    pub case: String,
    /// The tensor.
    pub tensor: String,
    /// Greatest absolute difference.
    pub max_abs: f64,
    /// That difference over the reference's greatest absolute value.
    pub relative: f64,
    /// The greatest absolute difference allowed.
    pub tolerance: f64,
    /// What else is wrong, such as a shape.
    pub complaint: Option<String>,
}

impl Row {
    /// Whether the tensor is as the reference has it.
    pub fn ok(&self) -> bool {
        self.complaint.is_none() && self.max_abs <= self.tolerance
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { case, tensor, max_abs, relative, tolerance, complaint } = self;
        let verdict = if self.ok() { "ok " } else { "BAD" };
        write!(
            f,
            "{verdict} {case:<16} {tensor:<34} abs {max_abs:<9.2e} rel {relative:<9.2e} tol {tolerance:.0e}"
        )?;
        complaint.iter().try_for_each(|text| write!(f, "  {text}"))
    }
}

/// Runs every case found in a folder.
pub fn run(folder: &Path) -> Result<Vec<Row>, Error> {
    let _no_grad = tch::no_grad_guard();
    let mut rows = Vec::new();
    for path in case_paths(folder)? {
        let mut case = Case::open(&path)?;
        if let Err(error) = run_case(&mut case) {
            case.rows.push(case.failed("—", NETWORK, &error));
        }
        rows.append(&mut case.rows);
    }
    Ok(rows)
}

/// The files of a folder, in the order of their names.
fn case_paths(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .map_err(|source| Error::Read { path: folder.to_owned(), source })?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "safetensors"))
        .collect();
    paths.sort();
    Ok(paths)
}

fn run_case(case: &mut Case) -> Result<(), Error> {
    let name = case.name.clone();
    match name.as_str() {
        "pipeline_e2e" => pipeline::run(case),
        "preproc" => picture::run(case),
        "schedulers" => sampling::schedules(case),
        _ if name.starts_with("dit21") => dit::forward_21(case),
        _ if name.starts_with("dit_") => dit::forward(case),
        _ if name.starts_with("dino_") => dino::run(case),
        _ if name.starts_with("u2net") => u2net::run(case),
        _ if name.starts_with("vae") => vae::run(case),
        _ if name.starts_with("denoise_") => sampling::denoise(case),
        _ => Ok(()),
    }
}

/// One file, and the rows that it gave.
struct Case {
    name: String,
    file: WeightsFile,
    rows: Vec<Row>,
}

impl Case {
    fn open(path: &Path) -> Result<Self, Error> {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, file: WeightsFile::open(path)?, rows: Vec::new() })
    }

    /// An entry of the header, as text.
    fn text(&self, key: &str) -> Result<&str, Error> {
        let text = self.file.texts().and_then(|texts| texts.get(key));
        text.map(String::as_str).ok_or_else(|| Error::config("parity", format!("{} has no {key}", self.name)))
    }

    /// An entry of the header, read as JSON.
    fn meta<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<T, Error> {
        let invalid = |error| Error::config("parity", format!("{key} of {}: {error}", self.name));
        serde_json::from_str(self.text(key)?).map_err(invalid)
    }

    /// Another case of the same folder.
    fn sibling(&self, name: &str) -> Result<Self, Error> {
        Self::open(&self.file.path().with_file_name(format!("{name}.safetensors")))
    }

    /// The `w.*` tensors under their own names.
    fn weights(&self) -> Prefixed<'_> {
        Prefixed { file: &self.file, prefix: "w." }
    }

    fn has(&self, tensor: &str) -> bool {
        self.file.info(tensor).is_some()
    }

    fn tensor(&self, name: &str) -> Result<Tensor, Error> {
        Ok(self.file.view(name)?)
    }

    fn optional(&self, name: &str) -> Result<Option<Tensor>, Error> {
        if self.has(name) { self.tensor(name).map(Some) } else { Ok(None) }
    }

    /// Compares with the reference tensor of that name, if the file has it.
    fn compare(&mut self, name: &str, ours: &Tensor, tolerance: f64) {
        if !self.has(name) {
            return;
        }
        let row = self.compared(name, ours, tolerance);
        let row = row.unwrap_or_else(|error| self.failed(name, tolerance, &error));
        self.rows.push(row);
    }

    /// Compares what a network gave, the tensors on its way first, each under its name.
    fn compare_traced(&mut self, mids: &[(String, Tensor)], out: &Tensor) {
        for (name, tensor) in mids {
            self.compare(name, tensor, NETWORK);
        }
        self.compare("out", out, NETWORK);
    }

    /// A row for what could not be computed.
    fn failed(&self, tensor: &str, tolerance: f64, error: &Error) -> Row {
        Row {
            case: self.name.clone(),
            tensor: tensor.to_owned(),
            max_abs: f64::NAN,
            relative: f64::NAN,
            tolerance,
            complaint: Some(error.to_string()),
        }
    }

    fn compared(&self, name: &str, ours: &Tensor, tolerance: f64) -> Result<Row, Error> {
        let theirs = self.tensor(name)?;
        let shapes_differ = ours.size() != theirs.size();
        let complaint =
            shapes_differ.then(|| format!("shape {:?}, reference {:?}", ours.size(), theirs.size()));
        let (max_abs, relative) = if shapes_differ {
            (f64::INFINITY, f64::INFINITY)
        } else {
            attempt(|| difference(ours, &theirs))?
        };
        let (case, tensor) = (self.name.clone(), name.to_owned());
        Ok(Row { case, tensor, max_abs, relative, tolerance, complaint })
    }
}

/// Greatest absolute difference, and its ratio to the greatest reference value.
fn difference(ours: &Tensor, theirs: &Tensor) -> (f64, f64) {
    if theirs.numel() == 0 {
        return (0.0, 0.0);
    }
    let ours = ours.to_device(Device::Cpu).to_kind(Kind::Double);
    let theirs = theirs.to_kind(Kind::Double);
    // NaN marks points that a decoder leaves out: both sides must leave out the same ones.
    let left_out = theirs.isnan();
    if ours.isnan().ne_tensor(&left_out).any().int64_value(&[]) != 0 {
        return (f64::INFINITY, f64::INFINITY);
    }
    let max_abs = (ours - &theirs).masked_fill(&left_out, 0.0).abs().max().double_value(&[]);
    let greatest = theirs.masked_fill(&left_out, 0.0).abs().max().double_value(&[]);
    (max_abs, max_abs / greatest.max(f64::MIN_POSITIVE))
}

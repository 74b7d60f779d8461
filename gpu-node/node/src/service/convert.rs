//! `convert`: a result in another format than it was made in.
//!
//! The file is read from the results store, converted on a blocking thread, and stored beside the original as an
//! object of its own, so that the second request for it finds it there. Results never change, so what was made once
//! stays right for as long as it is kept.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use orfeas_geometry::export::{ExportError, glb, obj, ply, stl};
use orfeas_geometry::import::{ImportError, read_glb, read_obj, read_ply, read_stl};
use orfeas_protocol::options::ModelFormat;
use orfeas_protocol::problem::{Code, Problem};
use orfeas_protocol::subjects::results_object;
use orfeas_protocol::view::Job;
use orfeas_protocol::{JobId, JobStatus, Sha256Digest};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::node::NodeContext;
use super::objects::{ObjectError, ObjectInfo};
use super::submission::{internal, unavailable};

/// A model of a million faces takes a second; a caller waits for it.
const CONVERT_LIMIT: Duration = Duration::from_secs(20);
/// Conversions at one time: they compete with the pipeline for the processor, and each holds a model in memory.
const AT_ONCE_MAX: usize = 2;
/// What the pipeline makes is far smaller.
const MODEL_BYTES_MAX: u64 = 512 << 20;

/// The request of `convert`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConvertRequest {
    id: JobId,
    format: ModelFormat,
}

/// The answer of `convert`: what lies in the results store now, under [`results_object`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Converted {
    bytes: u64,
    sha256: Sha256Digest,
    media_type: &'static str,
}

/// The places for conversions. Clones stand for the same places.
#[derive(Debug, Clone)]
pub(crate) struct Converter {
    places: Arc<Semaphore>,
}

impl Default for Converter {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE_MAX)) }
    }
}

#[derive(Debug, Error)]
enum ConvertError {
    #[error("cannot read the stored model")]
    Read(#[from] ImportError),
    #[error("cannot write the model")]
    Write(#[from] ExportError),
}

/// Answers a request.
///
/// # Errors
/// The job has no result, or one that cannot be converted; too many conversions run; NATS does not answer.
pub(crate) async fn convert(
    node: &NodeContext,
    job: &Job,
    request: ConvertRequest,
) -> Result<Converted, Problem> {
    let from = check(job, request.format)?;
    let name = results_object(job.id, request.format);
    let store = &node.bus.results;
    let failed = |error: ObjectError| store_problem(&error);
    if let Some(made) =
        store.describe(&name).await.map_err(failed)?.and_then(|info| made(&info, request.format))
    {
        return Ok(made);
    }
    let place = node.converter.places.clone().try_acquire_owned();
    let place = place
        .map_err(|_| Problem::new(Code::Overloaded, "too many conversions at one time").retry_after(2))?;
    let model = store.get(&job.id.to_string(), MODEL_BYTES_MAX).await.map_err(failed)?;
    let format = request.format;
    let work = tokio::task::spawn_blocking(move || {
        // The place is held by the work, which nobody can stop, and not by the caller's patience.
        let _place = place;
        write(&model, from, format)
    });
    let file = match timeout(CONVERT_LIMIT, work).await {
        Ok(Ok(Ok(file))) => Bytes::from(file),
        Ok(Ok(Err(error))) => return Err(internal("convert a result", &error)),
        Ok(Err(panicked)) => return Err(internal("convert a result", &panicked)),
        Err(elapsed) => {
            tracing::warn!(job = %job.id, %elapsed, "conversion given up");
            return Err(Problem::new(Code::DeadlineExceeded, "the conversion took too long"));
        }
    };
    let version = store.version(&name).await.map_err(failed)?;
    match store.put(&name, &file, &version).await {
        // Somebody else has made the same file.
        Ok(()) | Err(ObjectError::Superseded) => {}
        Err(error) => return Err(failed(error)),
    }
    Ok(Converted {
        bytes: file.len() as u64,
        sha256: Sha256Digest::of(&file),
        media_type: format.media_type(),
    })
}

/// The format of the job's result, if it has one that can be converted.
fn check(job: &Job, format: ModelFormat) -> Result<ModelFormat, Problem> {
    let Some(result) = job.result.as_ref().filter(|_| job.status == JobStatus::Completed) else {
        return Err(match job.status.is_terminal() {
            true => Problem::new(Code::JobHasNoResult, format!("the job is {}", job.status.as_str())),
            false => Problem::new(Code::JobNotFinished, "the job has not finished"),
        });
    };
    let made_as = ModelFormat::ALL.into_iter().find(|known| known.media_type() == result.media_type);
    made_as.ok_or_else(|| {
        let detail = format!("the result is {}, which cannot be converted to {format}", result.media_type);
        Problem::new(Code::NotSupported, detail)
    })
}

/// What was made before, if its description tells all of it.
fn made(info: &ObjectInfo, format: ModelFormat) -> Option<Converted> {
    Some(Converted { bytes: info.size, sha256: info.sha256()?, media_type: format.media_type() })
}

/// What a format has no place for is gone: an OBJ's texture became the colours of its vertices, an STL has none.
fn write(file: &[u8], from: ModelFormat, to: ModelFormat) -> Result<Vec<u8>, ConvertError> {
    let model = match from {
        ModelFormat::Glb => read_glb(file)?,
        ModelFormat::Obj => read_obj(file)?,
        ModelFormat::Ply => read_ply(file)?,
        ModelFormat::Stl => read_stl(file)?,
    };
    Ok(match to {
        ModelFormat::Glb => glb(&model)?,
        ModelFormat::Obj => obj(&model)?,
        ModelFormat::Ply => ply(&model)?,
        ModelFormat::Stl => stl(&model.mesh)?,
    })
}

fn store_problem(error: &ObjectError) -> Problem {
    match error {
        ObjectError::NotFound => Problem::new(Code::ResultExpired, "the result has been removed"),
        ObjectError::Damaged | ObjectError::TooLarge { .. } => internal("read a result", error),
        ObjectError::Full => {
            Problem::new(Code::UpstreamUnavailable, "the store of results is full").retry_after(60)
        }
        ObjectError::Superseded | ObjectError::Unavailable { .. } => {
            unavailable("use the results store", error)
        }
    }
}

impl ConvertRequest {
    /// The job whose result is asked for.
    pub(crate) fn id(&self) -> JobId {
        self.id
    }
}

#[cfg(test)]
mod tests {
    use orfeas_geometry::{Mesh, Model};

    use super::*;

    fn tetrahedron() -> Model {
        let positions = vec![[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        let triangles = vec![[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]];
        Model::untextured(Mesh::new(positions, triangles).unwrap())
    }

    #[test]
    fn a_stored_model_becomes_each_format_with_all_its_faces() {
        let glb = glb(&tetrahedron()).unwrap();
        for from in ModelFormat::ALL {
            let stored = write(&glb, ModelFormat::Glb, from).unwrap();
            let to = |format| write(&stored, from, format).unwrap();
            let obj = String::from_utf8(to(ModelFormat::Obj)).unwrap();
            assert_eq!(obj.lines().filter(|line| line.starts_with("f ")).count(), 4, "{from}");
            let stl = to(ModelFormat::Stl);
            assert_eq!((stl.len(), &stl[80..84]), (84 + 4 * 50, &[4, 0, 0, 0][..]), "{from}");
            assert!(to(ModelFormat::Ply).starts_with(b"ply\n"), "{from}");
            let read = read_glb(&to(ModelFormat::Glb)).unwrap().mesh;
            assert_eq!((read.triangles().len(), read.positions().len()), (4, 4), "{from}");
        }
    }

    #[test]
    fn what_is_no_model_is_an_error_and_no_panic() {
        for from in ModelFormat::ALL {
            for bad in [&b"glTF"[..], &[0; 64], &[0xff; 100]] {
                let outcome = write(bad, from, ModelFormat::Glb);
                assert!(matches!(outcome, Err(ConvertError::Read(_))), "{from}: {outcome:?}");
            }
        }
    }
}

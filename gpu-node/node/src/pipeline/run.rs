//! One job from its file to its model: the stages in their order.

use orfeas_geometry::cleanup::{CleanOptions, clean};
use orfeas_geometry::normals::vertex_normals;
use orfeas_geometry::surface::{DenseVolume, GridFrame, SurfaceOptions, extract_closed_surface};
use orfeas_geometry::{Mesh, MeshReport, Model, simplify};
use orfeas_protocol::options::JobType;

use super::background::SubjectNetwork;
use super::decode::Picture;
use super::family::{Family, Projection, ReadyMade, Shape, Subject, Volume};
use super::stage::{Stage, Track};
use super::{Generated, GenerationRequest, ModelKey, Monitor, PipelineError};
use super::{background, decode, export, texture};

/// Runs a job on a model.
///
/// # Errors
/// As [`PipelineError`] says.
pub(super) fn run(
    family: &dyn Family,
    key: &ModelKey,
    request: &GenerationRequest,
    network: Option<&SubjectNetwork>,
    monitor: &mut dyn Monitor,
) -> Result<Generated, PipelineError> {
    if request.job_type != JobType::Generation3d {
        return Err(PipelineError::NotSupported(format!("job type {}", request.job_type)));
    }
    let settings = &request.settings;
    let mut track = Track::new(monitor);
    if let Some(made) = family.ready_made(settings, &mut track) {
        let ReadyMade { file, report } = made?;
        return Ok(Generated {
            file,
            media_type: settings.format.media_type(),
            model: settings.choice(key),
            report,
            stage_seconds: track.finish(),
        });
    }
    let views = settings.views.pictures();
    let (picture, others) = track.run(Stage::Decode, |_| {
        let others = views.iter().map(|(side, picture)| Ok((*side, decode::decode(picture)?)));
        Ok((decode::decode(&request.image)?, others.collect::<Result<Vec<_>, PipelineError>>()?))
    })?;
    let subject = track.run(Stage::Background, |_| {
        let cut = |picture: Picture, others| {
            let mask = background::remove(&picture, settings.remove_background, network)?;
            Ok(Subject { picture, mask, others })
        };
        let others = others.into_iter().map(|(side, picture)| Ok((side, cut(picture, Vec::new())?)));
        let others = others.collect::<Result<Vec<_>, PipelineError>>()?;
        cut(picture, others)
    })?;
    let Shape { volume, projection } =
        track.run(Stage::Shape, |steps| family.shape(&subject, settings, steps))?;
    let mesh = track.run(Stage::Surface, |_| surface(&volume))?;
    drop(volume);
    let mesh = track.run(Stage::Cleanup, |_| cleaned(&mesh))?;
    let mesh = track.run(Stage::Simplify, |_| fewer_faces(&mesh, settings.target_faces))?;
    let projection = match projection {
        Some(projection) => projection,
        None => Projection::fitted(&mesh, &subject.mask).ok_or(PipelineError::EmptyMesh)?,
    };
    let painted = if settings.texture {
        Some(track.run(Stage::Texture, |_| texture::paint(&mesh, &projection, &subject))?)
    } else {
        None
    };
    let (file, report) = track.run(Stage::Export, |_| {
        let model = match painted {
            Some(painted) => Model::textured(centred(painted.mesh)?, export::encode(&painted.texture)?),
            None => {
                let normals = vertex_normals(&mesh);
                Model::untextured(centred(mesh.with_normals(normals).map_err(unusable)?)?)
            }
        };
        Ok((export::write(&model, settings.format)?, MeshReport::of(&model.mesh)))
    })?;
    Ok(Generated {
        file,
        media_type: settings.format.media_type(),
        model: settings.choice(key),
        report,
        stage_seconds: track.finish(),
    })
}

fn surface(volume: &Volume) -> Result<Mesh, PipelineError> {
    let frame = GridFrame { origin: volume.origin, cell_size: [volume.spacing; 3] };
    let dense = DenseVolume::new(volume.dims, &volume.samples).map_err(unusable)?;
    let mesh = extract_closed_surface(&dense, &SurfaceOptions::new(0.0, frame)).map_err(unusable)?;
    if mesh.is_empty() { Err(PipelineError::EmptyMesh) } else { Ok(mesh) }
}

/// One solid for each part of the subject that is large enough to be meant.
fn cleaned(mesh: &Mesh) -> Result<Mesh, PipelineError> {
    let mesh = clean(mesh, &CleanOptions::default());
    if mesh.is_empty() { Err(PipelineError::EmptyMesh) } else { Ok(mesh) }
}

fn fewer_faces(mesh: &Mesh, target: usize) -> Result<Mesh, PipelineError> {
    if mesh.triangles().len() <= target {
        return Ok(mesh.clone());
    }
    simplify::simplify(mesh, target).map_err(unusable)
}

fn centred(mesh: Mesh) -> Result<Mesh, PipelineError> {
    mesh.centred(export::EXTENT_M).map_err(unusable)
}

fn unusable(error: impl std::error::Error) -> PipelineError {
    PipelineError::Geometry(error.to_string())
}

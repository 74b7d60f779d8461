//! One job from its file to its model: the stages in their order.

use orfeas_geometry::cleanup::{CleanOptions, clean_watched};
use orfeas_geometry::normals::vertex_normals;
use orfeas_geometry::surface::{DenseVolume, GridFrame, SurfaceOptions, extract_closed_surface_watched};
use orfeas_geometry::{Mesh, MeshReport, Model, simplify};
use orfeas_protocol::options::JobType;

use super::background::SubjectNetwork;
use super::decode::Picture;
use super::family::{Family, Projection, ReadyMade, Shape, Subject, Volume};
use super::stage::{Stage, Tick, Track, within};
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
    let pictures = 1 + views.len();
    let (picture, others) = track.run(Stage::Decode, |steps| {
        let mut decoded = Vec::with_capacity(views.len());
        for (index, (side, picture)) in views.iter().enumerate() {
            let mut tick = |done| steps.advance(share(index, pictures, done));
            decoded.push((*side, decode::decode(picture, &mut tick)?));
        }
        let mut tick = |done| steps.advance(share(views.len(), pictures, done));
        Ok((decode::decode(&request.image, &mut tick)?, decoded))
    })?;
    let subject = track.run(Stage::Background, |steps| {
        let mut cut = |index, picture: Picture, others| {
            let mut tick = |done| steps.advance(share(index, pictures, done));
            let mask = background::remove(&picture, settings.remove_background, network, &mut tick)?;
            Ok::<_, PipelineError>(Subject { picture, mask, others })
        };
        let mut subjects = Vec::with_capacity(others.len());
        for (index, (side, picture)) in others.into_iter().enumerate() {
            subjects.push((side, cut(index, picture, Vec::new())?));
        }
        cut(pictures - 1, picture, subjects)
    })?;
    let Shape { volume, projection } =
        track.run(Stage::Shape, |steps| family.shape(&subject, settings, steps))?;
    let mesh = track.run(Stage::Surface, |steps| surface(&volume, &mut |done| steps.advance(done)))?;
    drop(volume);
    let mesh = track.run(Stage::Cleanup, |steps| cleaned(&mesh, &mut |done| steps.advance(done)))?;
    let mesh = track.run(Stage::Simplify, |steps| {
        fewer_faces(&mesh, settings.target_faces, &mut |done| steps.advance(done))
    })?;
    let projection = match projection {
        Some(projection) => projection,
        None => Projection::fitted(&mesh, &subject.mask).ok_or(PipelineError::EmptyMesh)?,
    };
    let painted = if settings.texture {
        Some(track.run(Stage::Texture, |steps| {
            texture::paint(&mesh, &projection, &subject, &mut |done| steps.advance(done))
        })?)
    } else {
        None
    };
    let (file, report) = track.run(Stage::Export, |steps| {
        let tick: &mut Tick<'_> = &mut |done| steps.advance(done);
        let model = match painted {
            Some(painted) => {
                let texture = export::encode(&painted.texture, &mut within(tick, 0.0, 0.5))?;
                Model::textured(centred(painted.mesh)?, texture)
            }
            None => {
                let normals = vertex_normals(&mesh);
                Model::untextured(centred(mesh.with_normals(normals).map_err(unusable)?)?)
            }
        };
        let report = MeshReport::of_watched(&model.mesh, &mut within(tick, 0.5, 0.7))?;
        tick(0.7)?;
        Ok((export::write(&model, settings.format)?, report))
    })?;
    Ok(Generated {
        file,
        media_type: settings.format.media_type(),
        model: settings.choice(key),
        report,
        stage_seconds: track.finish(),
    })
}

/// The part of a stage that is done when `done` of the picture number `index` is.
fn share(index: usize, pictures: usize, done: f32) -> f32 {
    (index as f32 + done) / pictures.max(1) as f32
}

fn surface(volume: &Volume, tick: &mut Tick<'_>) -> Result<Mesh, PipelineError> {
    let frame = GridFrame { origin: volume.origin, cell_size: [volume.spacing; 3] };
    let dense = DenseVolume::new(volume.dims, &volume.samples).map_err(unusable)?;
    let options = SurfaceOptions::new(0.0, frame);
    let mesh = extract_closed_surface_watched(&dense, &options, tick)?.map_err(unusable)?;
    if mesh.is_empty() { Err(PipelineError::EmptyMesh) } else { Ok(mesh) }
}

/// One solid for each part of the subject that is large enough to be meant.
fn cleaned(mesh: &Mesh, tick: &mut Tick<'_>) -> Result<Mesh, PipelineError> {
    let mesh = clean_watched(mesh, &CleanOptions::default(), tick)?;
    if mesh.is_empty() { Err(PipelineError::EmptyMesh) } else { Ok(mesh) }
}

fn fewer_faces(mesh: &Mesh, target: usize, tick: &mut Tick<'_>) -> Result<Mesh, PipelineError> {
    if mesh.triangles().len() <= target {
        return Ok(mesh.clone());
    }
    simplify::simplify_watched(mesh, target, tick)?.map_err(unusable)
}

fn centred(mesh: Mesh) -> Result<Mesh, PipelineError> {
    mesh.centred(export::EXTENT_M).map_err(unusable)
}

fn unusable(error: impl std::error::Error) -> PipelineError {
    PipelineError::Geometry(error.to_string())
}

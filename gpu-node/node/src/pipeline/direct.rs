//! The short way from a request to its model, for programs that run one job at a time and have nothing to decide.

use tokio::task::spawn_blocking;

use super::{Engine, GenerationRequest, ModelKey, Monitor, PipelineError, Run};

/// Runs a job on the present version of a family, `None` for the engine's own, and loads it before if need be.
pub async fn generate(
    engine: &dyn Engine,
    family: Option<&str>,
    request: GenerationRequest,
    monitor: Box<dyn Monitor>,
) -> Run {
    match ready(engine, family.unwrap_or(engine.default_family())).await {
        Ok(key) => engine.run(key, request, monitor).await,
        Err(error) => Run::failed(error),
    }
}

async fn ready(engine: &dyn Engine, family: &str) -> Result<ModelKey, PipelineError> {
    let source = engine.sources().into_iter().find(|source| source.family() == family);
    let source = source.ok_or_else(|| PipelineError::NotSupported(format!("model family {family}")))?;
    let installed = engine.installed();
    let loading = spawn_blocking(move || {
        let key = ModelKey::new(source.family(), source.fingerprint()?);
        let model = if installed.contains(&key) { None } else { Some(source.load(&key.version)?) };
        Ok((key, model))
    });
    // A loader that panicked, or a runtime that ends.
    let (key, model) = loading.await.unwrap_or(Err(PipelineError::Stopped))?;
    if let Some(model) = model {
        engine.install(key.clone(), model)?;
    }
    Ok(key)
}

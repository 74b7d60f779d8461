//! What a model family is to the pipeline.

/// A family that this node can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FamilyInfo {
    /// The name that requests use.
    pub name: &'static str,
    /// The version: of the weights, or of the code where there are none.
    pub version: String,
}

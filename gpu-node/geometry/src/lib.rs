//! Meshes: surfaces, clean-up, simplification, files.

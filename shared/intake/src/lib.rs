//! Upload checks: type, limits, integrity, digest.

//! What callers, edge and nodes agree on: ids, jobs, options, presets, subjects, problem codes.

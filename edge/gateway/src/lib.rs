//! The edge component: the HTTP API.

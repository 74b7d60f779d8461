//! The options of a request: one parser for query parameters, form fields, JSON members and NATS headers,
//! so that every way in has the same names, ranges and errors.
//!
//! ```text
//!  text ─▶ values (ranges) ─▶ RequestOptions ──▶ JobOptions, which the job's record keeps
//!                                   └─▶ what concerns the request alone: the wait, the type of job, a stored picture
//! ```

mod choices;
mod job;
mod priority;
mod request;
mod values;

pub use choices::{BackgroundRemoval, JobType, ModelFormat};
pub use job::JobOptions;
pub use priority::Priority;
pub use request::{OPTION_NAMES, OptionError, RequestOptions};

//! The body of an upload as a stream of events: where a picture begins, its bytes, and at the end the
//! options. Whether it comes as a form, as the bare picture or as JSON is nobody's business beyond this module.
//!
//! A form may bring pictures of more sides than the front, one after the other:
//!
//! ```text
//!  Image(Front) Data Data …  Image(Other(Left)) Data …  ─▶ finish: options, and that one front was there
//! ```

mod json_body;
mod multipart;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use orfeas_intake::{Declared, Limits};
use orfeas_protocol::Side;
use orfeas_protocol::options::{OptionError, RequestOptions};
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::head::Head;
use json_body::JsonBody;
use multipart::{Multipart, PartHead};

/// The form field that brings the picture.
const IMAGE_PART: &str = "image";

/// Its other name, for who sends all sides.
const FRONT_PART: &str = "front";

/// The value of an option: the longest is a digest.
const VALUE_BYTES_MAX: usize = 1024;

/// What a form or a JSON body may add to its picture.
const ENVELOPE_BYTES_MAX: u64 = 64 * 1024;

/// What a part, or the request, says that the picture is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageHead {
    file_name: Option<String>,
    content_type: Option<String>,
}

impl ImageHead {
    /// The declaration for the checks.
    pub fn declared(&self) -> Declared<'_> {
        Declared { file_name: self.file_name.as_deref(), content_type: self.content_type.as_deref() }
    }
}

/// What a body is for, which decides what may be in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A picture to store: bare, or the part `image` of a form.
    Store,
    /// A job: a bare picture, a form with a picture for each side, or JSON.
    Job,
}

impl Purpose {
    /// The side that a form's part of this name shows; `None` if it is an option.
    fn pictured(self, part: &str) -> Option<Pictured> {
        match (self, part) {
            (_, IMAGE_PART) | (Self::Job, FRONT_PART) => Some(Pictured::Front),
            (Self::Job, part) => part.parse().ok().map(Pictured::Other),
            (Self::Store, _) => None,
        }
    }

    const fn form_pictures_max(self) -> u64 {
        match self {
            Self::Store => 1,
            Self::Job => 1 + Side::ALL.len() as u64,
        }
    }
}

/// What a picture shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pictured {
    /// The subject's front: the job's own picture.
    Front,
    /// Another side of it.
    Other(Side),
}

/// A step of the upload.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A picture begins, and the one before it, if any, is complete. Each side comes once.
    Image(Pictured, ImageHead),
    /// Some of its bytes.
    Data(Bytes),
}

/// A body that is being read.
#[derive(Debug)]
pub struct UploadReader {
    purpose: Purpose,
    body: Body,
    options: RequestOptions,
    has_image: bool,
    others: Vec<Side>,
}

#[derive(Debug)]
enum Body {
    Raw { head: ImageHead, queued: Option<Bytes> },
    Form { parser: Box<Multipart>, part: Part },
    Json { reader: JsonBody, queued: Option<Bytes> },
}

/// The part of the form that is being read.
#[derive(Debug)]
enum Part {
    None,
    Image,
    Option { name: String, value: Vec<u8> },
}

/// What is known when the body has ended.
#[derive(Debug)]
pub struct Upload {
    /// The options, from the query and the body.
    pub options: RequestOptions,
    /// The last picture's last bytes.
    pub last: Vec<Event>,
}

impl UploadReader {
    /// Looks at the head of the request, before any byte of the body is read.
    ///
    /// # Errors
    /// The query has a bad option, the content type is malformed, or the body is longer than any upload may be.
    pub fn new(head: &Head, purpose: Purpose, limits: Limits) -> Result<Self, Failure> {
        let mut options = RequestOptions::default();
        for (name, value) in form_urlencoded::parse(head.query.as_bytes()) {
            options.set(&name, &value)?;
        }
        let content_type = head.header(CONTENT_TYPE);
        let media_type = content_type.map(|value| value.split(';').next().unwrap_or_default().trim());
        let is = |wanted: &str| media_type.is_some_and(|found| found.eq_ignore_ascii_case(wanted));
        let (body, bytes_max) = if is("multipart/form-data") {
            let parser = Multipart::new(content_type.unwrap_or_default()).map_err(invalid)?;
            let bytes_max = purpose.form_pictures_max() * limits.bytes_max + ENVELOPE_BYTES_MAX;
            (Body::Form { parser: Box::new(parser), part: Part::None }, bytes_max)
        } else if purpose == Purpose::Job && is("application/json") {
            let base64_bytes_max = limits.bytes_max.div_ceil(3) * 4;
            (Body::Json { reader: JsonBody::new(), queued: None }, base64_bytes_max + ENVELOPE_BYTES_MAX)
        } else {
            let head = ImageHead { file_name: None, content_type: content_type.map(str::to_owned) };
            (Body::Raw { head, queued: None }, limits.bytes_max)
        };
        if head.content_length().is_some_and(|length| length > bytes_max) {
            return Err(orfeas_intake::Rejection::TooLarge { limit_bytes: limits.bytes_max }.into());
        }
        Ok(Self { purpose, body, options, has_image: false, others: Vec::new() })
    }

    /// Takes the next bytes of the body; call [`Self::next_event`] until it has no more.
    ///
    /// # Errors
    /// A JSON body is over its bounds.
    pub fn push(&mut self, bytes: Bytes) -> Result<(), Failure> {
        match &mut self.body {
            Body::Raw { queued, .. } => *queued = Some(bytes),
            Body::Form { parser, .. } => parser.push(&bytes),
            Body::Json { reader, queued } => *queued = Some(reader.push(&bytes).map_err(invalid)?),
        }
        Ok(())
    }

    /// The next event, or `None` if more bytes are needed.
    ///
    /// # Errors
    /// The body is malformed, or has a bad option.
    pub fn next_event(&mut self) -> Result<Option<Event>, Failure> {
        match &mut self.body {
            Body::Raw { head, queued } => Ok(announced(&mut self.has_image, true, head, queued)),
            Body::Json { reader, queued } => {
                Ok(announced(&mut self.has_image, reader.has_image(), &ImageHead::default(), queued))
            }
            Body::Form { .. } => self.next_of_form(),
        }
    }

    fn next_of_form(&mut self) -> Result<Option<Event>, Failure> {
        let Self { purpose, body: Body::Form { parser, part }, options, has_image, others } = self else {
            return Ok(None);
        };
        while let Some(event) = parser.next_event().map_err(invalid)? {
            match event {
                multipart::Event::Part(PartHead { name, file_name, content_type }) => {
                    let Some(pictured) = purpose.pictured(&name) else {
                        *part = Part::Option { name, value: Vec::new() };
                        continue;
                    };
                    let is_first = match pictured {
                        Pictured::Front => !std::mem::replace(has_image, true),
                        Pictured::Other(side) if others.contains(&side) => false,
                        Pictured::Other(side) => {
                            others.push(side);
                            true
                        }
                    };
                    if !is_first {
                        let detail = format!("the part `{name}` is a second picture of the same side");
                        return Err(Failure::invalid(detail));
                    }
                    *part = Part::Image;
                    return Ok(Some(Event::Image(pictured, ImageHead { file_name, content_type })));
                }
                multipart::Event::Data(data) => match part {
                    Part::Image => return Ok(Some(Event::Data(data))),
                    Part::Option { value, .. } if value.len() + data.len() <= VALUE_BYTES_MAX => {
                        value.extend_from_slice(&data);
                    }
                    Part::Option { name, .. } => {
                        let name = name.chars().take(64).collect();
                        return Err(OptionError { name, reason: "longer than any value".to_owned() }.into());
                    }
                    Part::None => {}
                },
                multipart::Event::PartEnd => {
                    if let Part::Option { name, value } = std::mem::replace(part, Part::None) {
                        options.set(&name, &String::from_utf8_lossy(&value))?;
                    }
                }
            }
        }
        Ok(None)
    }

    /// Ends the body.
    ///
    /// # Errors
    /// It broke off, is malformed, has a bad option, or brings no picture of the front, or two of the same side.
    pub fn finish(self) -> Result<Upload, Failure> {
        let Self { body, mut options, mut has_image, others, .. } = self;
        let mut last = Vec::new();
        match body {
            Body::Raw { .. } => {}
            Body::Form { parser, .. } if !parser.is_complete() => {
                return Err(Failure::invalid("the form data breaks off before its closing boundary"));
            }
            Body::Form { .. } => {}
            Body::Json { reader, .. } => {
                let may_begin = reader.has_image();
                let (bytes, rest) = reader.finish().map_err(invalid)?;
                read_members(&rest, &mut options)?;
                let mut queued = Some(bytes);
                last.extend(announced(&mut has_image, may_begin, &ImageHead::default(), &mut queued));
                last.extend(announced(&mut has_image, may_begin, &ImageHead::default(), &mut queued));
            }
        }
        if let Some(side) = others.into_iter().find(|side| options.has(side.option())) {
            let detail = format!("the request has both a part `{side}` and `{}`", side.option());
            return Err(Failure::invalid(detail));
        }
        match (has_image, options.image_sha256) {
            (true, Some(_)) => Err(Failure::invalid("the request has both a picture and `image_sha256`")),
            (false, None) => {
                Err(Failure::invalid("the request has no picture: send a part `image`, or a body"))
            }
            _ => Ok(Upload { options, last }),
        }
    }
}

/// First that the picture begins, then its bytes.
fn announced(
    has_image: &mut bool,
    may_begin: bool,
    head: &ImageHead,
    queued: &mut Option<Bytes>,
) -> Option<Event> {
    if may_begin && !*has_image {
        *has_image = true;
        return Some(Event::Image(Pictured::Front, head.clone()));
    }
    queued.take().filter(|bytes| !bytes.is_empty()).map(Event::Data)
}

/// `{type, params: {…}, priority}`
fn read_members(json: &[u8], options: &mut RequestOptions) -> Result<(), Failure> {
    let mut members: Map<String, Value> = serde_json::from_slice(json)
        .map_err(|error| invalid(format!("the body is not a JSON object: {error}")))?;
    let params = match members.remove("params") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(params)) => params,
        Some(_) => return Err(invalid("`params` is not an object")),
    };
    if let Some(name) = members.keys().find(|name| !matches!(name.as_str(), "type" | "priority")) {
        let name = name.chars().take(64).collect();
        let reason = "unknown beside `type`, `params` and `priority`".to_owned();
        return Err(OptionError { name, reason }.into());
    }
    options.set_json(&members)?;
    let mut params = params;
    match params.remove("image_base64") {
        None | Some(Value::Null | Value::String(_)) => {}
        Some(_) => return Err(invalid("`image_base64` is not a string")),
    }
    Ok(options.set_json(&params)?)
}

fn invalid(reason: impl ToString) -> Failure {
    Failure::invalid(reason.to_string())
}

#[cfg(test)]
mod tests;

//! A reader of OBJ, as [`crate::export::obj`] writes it: positions with colours behind them, and triangles.

use super::{ImportError, painted};
use crate::mesh::Mesh;
use crate::model::Model;

/// Reads an OBJ file.
///
/// # Errors
/// It is damaged, or has what our files do not have.
pub fn read_obj(file: &[u8]) -> Result<Model, ImportError> {
    let text = std::str::from_utf8(file).map_err(|_| ImportError::Container("it is no text"))?;
    let (mut positions, mut colours, mut triangles) = (Vec::new(), Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("v") => {
                positions.push(three(&mut words)?);
                let mut rest = words.peekable();
                if rest.peek().is_some() {
                    colours.push(three(&mut rest)?.map(|channel| (channel * 255.0).round() as u8));
                }
            }
            Some("f") => {
                let corners = [corner(words.next())?, corner(words.next())?, corner(words.next())?];
                if words.next().is_some() {
                    return Err(ImportError::Unsupported("a face of more than three corners"));
                }
                triangles.push(corners);
            }
            // Comments, the name, and normals, which are made anew.
            Some("#" | "o" | "vn") | None => {}
            Some(_) => return Err(ImportError::Unsupported("a statement")),
        }
    }
    painted(Mesh::new(positions, triangles)?, colours)
}

fn three<'t>(words: &mut impl Iterator<Item = &'t str>) -> Result<[f32; 3], ImportError> {
    let mut number = || {
        let number = words.next().and_then(|word| word.parse().ok());
        number.ok_or(ImportError::Container("a vertex without its three numbers"))
    };
    Ok([number()?, number()?, number()?])
}

/// `12` or `12//34`: the vertex, counted from one.
fn corner(word: Option<&str>) -> Result<u32, ImportError> {
    let vertex = word.and_then(|word| word.split('/').next()).and_then(|vertex| vertex.parse::<u32>().ok());
    let vertex = vertex.and_then(|vertex| vertex.checked_sub(1));
    vertex.ok_or(ImportError::Container("a face without its three vertices"))
}

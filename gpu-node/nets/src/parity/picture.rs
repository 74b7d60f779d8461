//! Cases of the image front end.

use super::Case;
use crate::Error;
use crate::picture::{Config, Picture, prepare, recentre};
use tch::Tensor;

/// Levels of 255 in bytes.
const LEVELS: f64 = 2.0;
/// In the tensors, which span -1..1: a level is 2/255.
pub(super) const SIGNED: f64 = 2.0 / 255.0 + 1e-6;

/// A picture tensor `[height, width, channels]` in bytes.
pub(super) fn picture(tensor: &Tensor) -> Result<Picture, Error> {
    let size = tensor.size();
    let pixels = Vec::<u8>::try_from(tensor.contiguous().view(-1))
        .map_err(|error| Error::config("parity", error.to_string()))?;
    Picture::new(size[1] as usize, size[0] as usize, size[2] as usize, pixels)
}

fn tensor(picture: &Picture) -> Tensor {
    let shape = [picture.height as i64, picture.width as i64, picture.channels as i64];
    Tensor::from_slice(&picture.pixels).view(shape)
}

/// `in.rgba<i>` and `in.rgb<i>`, recentred with the borders in the names, and prepared.
pub(super) fn run(case: &mut Case) -> Result<(), Error> {
    let config = Config { size: case.meta("size")?, border_ratio: Some(case.meta("border_ratio")?) };
    let names: Vec<String> = case.file.tensors().map(|(name, _)| name).collect();
    for name in &names {
        let digits = name.strip_prefix("in.rgba").or_else(|| name.strip_prefix("in.rgb"));
        let Some(index) = digits.and_then(|digits| digits.parse::<usize>().ok()) else { continue };
        let input = picture(&case.tensor(name)?)?;
        for border in borders(&names, index) {
            let (rgb, mask) = recentre(&input, border)?;
            case.compare(&format!("mid.recenter{index}.border{border}.rgb"), &tensor(&rgb), LEVELS);
            case.compare(&format!("mid.recenter{index}.border{border}.mask"), &tensor(&mask), LEVELS);
        }
        let prepared = prepare(&input, &config)?;
        case.compare(&format!("out.image{index}"), &prepared.image, SIGNED);
        case.compare(&format!("out.mask{index}"), &prepared.mask, SIGNED);
    }
    views(case, &config)
}

/// Borders that the reference recentred picture `index` with, from the tensors' names.
fn borders(names: &[String], index: usize) -> Vec<f64> {
    let prefix = format!("mid.recenter{index}.border");
    let borders =
        names.iter().filter_map(|name| name.strip_prefix(&prefix)?.strip_suffix(".rgb")?.parse().ok());
    borders.collect()
}

/// `out.mv_image_<view>_<view>…`: prepared pictures, stacked in the views'
/// order. The file does not say which picture is which view: the nearest one is.
fn views(case: &mut Case, config: &Config) -> Result<(), Error> {
    let names: Vec<String> = case.file.tensors().map(|(name, _)| name).collect();
    let mut prepared = Vec::new();
    for name in names.iter().filter(|name| name.starts_with("in.rgb")) {
        prepared.push(prepare(&picture(&case.tensor(name)?)?, config)?.image);
    }
    for name in names.iter().filter(|name| name.starts_with("out.mv_image_")) {
        let reference = case.tensor(name)?.squeeze_dim(0);
        let nearest = |slot: i64| {
            let difference = |image: &&Tensor| (*image - reference.get(slot)).abs().max().double_value(&[]);
            prepared.iter().min_by(|a, b| difference(a).total_cmp(&difference(b)))
        };
        let images: Vec<&Tensor> = (0..reference.size()[0]).filter_map(nearest).collect();
        case.compare(name, &Tensor::cat(&images, 0).unsqueeze(0), SIGNED);
    }
    Ok(())
}

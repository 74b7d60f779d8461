//! Where networks take their tensors from, with an account of every key.
//!
//! A network's `new(&Weights, &Config)` asks for each tensor by name and shape
//! and cannot fail: what is missing or has another shape is written down, and
//! [`load`] reports all of it, together with the keys that nobody asked for, as
//! one [`Mismatch`].

use crate::Error;
use orfeas_torch::{TensorInfo, TorchError, WeightsFile, attempt};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use tch::{Device, Kind, Tensor};

/// A set of named tensors.
pub trait TensorSource {
    /// What it is, for messages.
    fn name(&self) -> String;
    /// All keys.
    fn keys(&self) -> Vec<String>;
    /// The header entry of a key.
    fn info(&self, key: &str) -> Option<TensorInfo>;
    /// Reads a tensor to a device, in a type.
    fn read(&self, key: &str, device: Device, kind: Kind) -> Result<Tensor, TorchError>;
}

impl TensorSource for WeightsFile {
    fn name(&self) -> String {
        self.path().display().to_string()
    }

    fn keys(&self) -> Vec<String> {
        self.tensors().map(|(key, _)| key).collect()
    }

    fn info(&self, key: &str) -> Option<TensorInfo> {
        self.info(key)
    }

    fn read(&self, key: &str, device: Device, kind: Kind) -> Result<Tensor, TorchError> {
        self.load(key, device, kind)
    }
}

/// The tensors of a file whose names begin with a prefix, without it.
#[derive(Debug, Clone, Copy)]
pub struct Prefixed<'a> {
    /// The file.
    pub file: &'a WeightsFile,
    /// The prefix.
    pub prefix: &'static str,
}

impl TensorSource for Prefixed<'_> {
    fn name(&self) -> String {
        self.file.path().display().to_string()
    }

    fn keys(&self) -> Vec<String> {
        let names = self.file.tensors().map(|(name, _)| name);
        names.filter_map(|name| Some(name.strip_prefix(self.prefix)?.to_owned())).collect()
    }

    fn info(&self, key: &str) -> Option<TensorInfo> {
        self.file.info(&format!("{}{key}", self.prefix))
    }

    fn read(&self, key: &str, device: Device, kind: Kind) -> Result<Tensor, TorchError> {
        self.file.load(&format!("{}{key}", self.prefix), device, kind)
    }
}

/// A scope of a source: `weights.scope("blocks").scope(3)` sees `blocks.3.*`.
pub struct Weights<'a> {
    source: &'a dyn TensorSource,
    ledger: &'a RefCell<Ledger>,
    prefix: String,
    device: Device,
    kind: Kind,
    /// Whether matrices on the CPU stay in the file's type, mapped.
    mapped: bool,
}

/// What was asked for, and what was wrong with it.
#[derive(Default)]
struct Ledger {
    taken: BTreeSet<String>,
    missing: Vec<(String, Vec<i64>)>,
    misshaped: Vec<Misshaped>,
    failure: Option<TorchError>,
}

/// A tensor whose shape is not the network's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misshaped {
    /// The key.
    pub key: String,
    /// The shape that the network needs.
    pub expected: Vec<i64>,
    /// The shape in the source.
    pub found: Vec<i64>,
}

/// Weights that do not fit a network: everything that is wrong, at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Mismatch {
    /// The source.
    pub source_name: String,
    /// Keys that the network needs and the source lacks.
    pub missing: Vec<String>,
    /// Keys that the source has and no network asked for.
    pub unexpected: Vec<String>,
    /// Keys of another shape.
    pub misshaped: Vec<Misshaped>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Keys to name of each kind: a wrong config mismatches by hundreds.
        const SHOWN: usize = 12;
        write!(f, "weights {} do not fit the network", self.source_name)?;
        for (title, keys) in [("missing", &self.missing), ("unexpected", &self.unexpected)] {
            if !keys.is_empty() {
                let shown: Vec<&str> = keys.iter().take(SHOWN).map(String::as_str).collect();
                write!(f, "; {title} ({}): {}", keys.len(), shown.join(", "))?;
                if keys.len() > SHOWN {
                    f.write_str(", …")?;
                }
            }
        }
        if !self.misshaped.is_empty() {
            write!(f, "; wrong shape ({}): ", self.misshaped.len())?;
            for (i, tensor) in self.misshaped.iter().take(SHOWN).enumerate() {
                let comma = if i == 0 { "" } else { ", " };
                write!(f, "{comma}{} is {:?}, needs {:?}", tensor.key, tensor.found, tensor.expected)?;
            }
            if self.misshaped.len() > SHOWN {
                f.write_str(", …")?;
            }
        }
        Ok(())
    }
}

/// Builds a network from the tensors of `source` whose keys begin with `prefix`.
///
/// `ignored` says of a key (without the prefix) that it may be there without
/// being asked for, such as an encoder that generation has no use for.
pub fn load<N>(
    source: &dyn TensorSource,
    prefix: &str,
    (device, kind): (Device, Kind),
    ignored: impl Fn(&str) -> bool,
    build: impl FnOnce(&Weights<'_>) -> N,
) -> Result<N, Error> {
    let ledger = RefCell::default();
    let weights = Weights { source, ledger: &ledger, prefix: prefix.to_owned(), device, kind, mapped: true };
    let network = attempt(|| {
        let _no_grad = tch::no_grad_guard();
        build(&weights)
    })?;
    let ledger = ledger.into_inner();
    if let Some(failure) = ledger.failure {
        return Err(failure.into());
    }
    let unexpected: Vec<String> = source
        .keys()
        .into_iter()
        .filter(|key| {
            key.strip_prefix(prefix).is_some_and(|rest| !ignored(rest)) && !ledger.taken.contains(key)
        })
        .collect();
    if ledger.missing.is_empty() && ledger.misshaped.is_empty() && unexpected.is_empty() {
        return Ok(network);
    }
    Err(Mismatch {
        source_name: source.name(),
        missing: ledger.missing.into_iter().map(|(key, _)| key).collect(),
        unexpected,
        misshaped: ledger.misshaped,
    }
    .into())
}

/// The keys and shapes that a network asks for, in its order.
///
/// # Errors
/// libtorch cannot make a placeholder.
pub fn requests(build: impl FnOnce(&Weights<'_>)) -> Result<Vec<(String, Vec<i64>)>, Error> {
    let ledger = RefCell::default();
    let (device, kind) = (Device::Cpu, Kind::Float);
    attempt(|| {
        let _no_grad = tch::no_grad_guard();
        build(&Weights {
            source: &Nothing,
            ledger: &ledger,
            prefix: String::new(),
            device,
            kind,
            mapped: true,
        });
    })?;
    Ok(ledger.into_inner().missing)
}

/// A source without tensors.
struct Nothing;

impl TensorSource for Nothing {
    fn name(&self) -> String {
        "nothing".to_owned()
    }

    fn keys(&self) -> Vec<String> {
        Vec::new()
    }

    fn info(&self, _key: &str) -> Option<TensorInfo> {
        None
    }

    fn read(&self, key: &str, _device: Device, _kind: Kind) -> Result<Tensor, TorchError> {
        Err(TorchError::NoSuchTensor { path: self.name().into(), name: key.to_owned() })
    }
}

impl Weights<'_> {
    /// The scope below a name.
    pub fn scope(&self, name: impl fmt::Display) -> Self {
        Self { prefix: format!("{}{name}.", self.prefix), ..*self }
    }

    /// Whether a tensor is there, for parts that a checkpoint may or may not have.
    pub fn has(&self, name: &str) -> bool {
        self.source.info(&format!("{}{name}", self.prefix)).is_some()
    }

    /// The device on which tensors are made.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The type in which tensors are made.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The same scope, whose matrices are converted now: for a network that runs
    /// so often, on so few rows, that converting at each use would show.
    pub fn converted(&self) -> Self {
        Self { prefix: self.prefix.clone(), mapped: false, ..*self }
    }

    /// The same scope in another type.
    pub fn in_kind(&self, kind: Kind) -> Self {
        Self { prefix: self.prefix.clone(), kind, ..*self }
    }

    /// A large tensor, as [`Self::tensor`] but for its type on the CPU: there it
    /// stays as the file has it, without a copy, and whoever uses it converts.
    pub fn matrix(&self, name: &str, shape: &[i64]) -> Tensor {
        let stored = self.source.info(&format!("{}{name}", self.prefix)).and_then(|info| info.kind.ok());
        match stored {
            Some(kind @ (Kind::Half | Kind::BFloat16 | Kind::Float))
                if self.mapped && self.device == Device::Cpu =>
            {
                Self { prefix: self.prefix.clone(), kind, ..*self }.tensor(name, shape)
            }
            _ => self.tensor(name, shape),
        }
    }

    /// A tensor of the given shape. If the source has no such tensor, a
    /// placeholder without memory, and [`load`] will fail.
    pub fn tensor(&self, name: &str, shape: &[i64]) -> Tensor {
        let key = format!("{}{name}", self.prefix);
        let tensor = self.read(&key, shape);
        self.ledger.borrow_mut().taken.insert(key);
        tensor.unwrap_or_else(|| {
            let size: Vec<i64> = shape.to_vec();
            Tensor::zeros([1], (self.kind, self.device)).expand(&size, false)
        })
    }

    fn read(&self, key: &str, shape: &[i64]) -> Option<Tensor> {
        let mut ledger = self.ledger.borrow_mut();
        let Some(info) = self.source.info(key) else {
            ledger.missing.push((key.to_owned(), shape.to_vec()));
            return None;
        };
        if info.shape != shape {
            let (key, expected) = (key.to_owned(), shape.to_vec());
            ledger.misshaped.push(Misshaped { key, expected, found: info.shape });
            return None;
        }
        // After a failure the rest is only accounted for: an exhausted device
        // would fail for each tensor again.
        if ledger.failure.is_some() {
            return None;
        }
        self.source.read(key, self.device, self.kind).map_err(|error| ledger.failure = Some(error)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::Linear;
    use std::collections::BTreeMap;

    /// Tensors of ones in memory, by name and shape.
    struct Ones(BTreeMap<&'static str, Vec<i64>>);

    impl TensorSource for Ones {
        fn name(&self) -> String {
            "ones".to_owned()
        }

        fn keys(&self) -> Vec<String> {
            self.0.keys().map(ToString::to_string).collect()
        }

        fn info(&self, key: &str) -> Option<TensorInfo> {
            let shape = self.0.get(key)?.clone();
            Some(TensorInfo { shape, kind: Ok(Kind::Float), bytes: 0 })
        }

        fn read(&self, key: &str, device: Device, kind: Kind) -> Result<Tensor, TorchError> {
            Ok(Tensor::ones(self.0[key].as_slice(), (kind, device)))
        }
    }

    fn load_linear(tensors: &[(&'static str, &[i64])]) -> Result<Linear, Error> {
        let ones = Ones(tensors.iter().map(|(name, shape)| (*name, shape.to_vec())).collect());
        let target = (Device::Cpu, Kind::Float);
        load(
            &ones,
            "net.",
            target,
            |key| key.starts_with("encoder."),
            |w| Linear::new(&w.scope("a").scope(0), 3, 2),
        )
    }

    #[test]
    fn fitting_weights_load_and_other_components_are_left_alone() {
        let tensors: [(&str, &[i64]); 4] =
            [("net.a.0.weight", &[2, 3]), ("net.a.0.bias", &[2]), ("net.encoder.x", &[1]), ("other.y", &[1])];
        let linear = load_linear(&tensors).unwrap();
        let out = linear.forward(&Tensor::ones([1, 3], (Kind::Float, Device::Cpu)));
        assert_eq!(Vec::<f32>::try_from(out.view(-1)).unwrap(), [4.0, 4.0]);
    }

    #[test]
    fn one_error_lists_everything_that_does_not_fit() {
        let tensors: [(&str, &[i64]); 2] = [("net.a.0.weight", &[3, 2]), ("net.a.1.weight", &[2, 3])];
        let Err(Error::Mismatch(mismatch)) = load_linear(&tensors) else { panic!("it loaded") };
        assert_eq!(mismatch.missing, ["net.a.0.bias"]);
        assert_eq!(mismatch.unexpected, ["net.a.1.weight"]);
        assert_eq!(mismatch.misshaped.len(), 1);
        let text = mismatch.to_string();
        assert!(text.contains("net.a.0.weight is [3, 2], needs [2, 3]"), "{text}");
        assert!(text.contains("missing (1): net.a.0.bias"), "{text}");
    }

    #[test]
    fn a_long_list_is_cut_in_the_message_only() {
        let mismatch = Mismatch {
            source_name: "m".to_owned(),
            missing: (0..300).map(|i| format!("k{i}")).collect(),
            unexpected: Vec::new(),
            misshaped: Vec::new(),
        };
        let text = mismatch.to_string();
        assert!(text.contains("missing (300)") && text.ends_with(", …") && text.len() < 200, "{text}");
    }
}

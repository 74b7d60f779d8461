//! What a pickle can describe here: texts, numbers, containers, storages and tensors.

use std::rc::Rc;

/// Dictionaries within dictionaries.
const DEPTH_MAX: usize = 16;
/// Entries of all dictionaries: a dictionary that is referred to again and again counts each time.
const ENTRIES_MAX: usize = 1_000_000;

/// The element type of a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element {
    name: &'static str,
    pub(super) bytes: u64,
}

impl Element {
    /// By the class of its storage in `torch`.
    pub(super) fn of_storage(class: &str) -> Option<Self> {
        let (name, bytes) = match class {
            "FloatStorage" => ("F32", 4),
            "HalfStorage" => ("F16", 2),
            "BFloat16Storage" => ("BF16", 2),
            "DoubleStorage" => ("F64", 8),
            "LongStorage" => ("I64", 8),
            "IntStorage" => ("I32", 4),
            "ShortStorage" => ("I16", 2),
            "CharStorage" => ("I8", 1),
            "ByteStorage" => ("U8", 1),
            "BoolStorage" => ("BOOL", 1),
            _ => return None,
        };
        Some(Self { name, bytes })
    }

    /// Its name in a safetensors header.
    pub(super) fn safetensors_name(self) -> &'static str {
        self.name
    }
}

/// A tensor: which storage, and what of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TensorDescription {
    pub(super) storage: String,
    pub(super) element: Element,
    /// Elements into the storage.
    pub(super) offset: u64,
    pub(super) shape: Vec<u64>,
    strides: Vec<u64>,
}

impl TensorDescription {
    /// As `_rebuild_tensor_v2` is given it.
    pub(super) fn new(storage: &Object, offset: &Object, shape: &Object, strides: &Object) -> Option<Self> {
        let Object::Storage { key, element } = storage else { return None };
        let size = |object: &Object| match object {
            Object::Int(value) => u64::try_from(*value).ok(),
            _ => None,
        };
        let sizes = |object: &Object| match object {
            Object::Tuple(items) => items.iter().map(size).collect::<Option<Vec<u64>>>(),
            _ => None,
        };
        let (shape, strides) = (sizes(shape)?, sizes(strides)?);
        let offset = size(offset)?;
        (shape.len() == strides.len()).then(|| TensorDescription {
            storage: key.to_string(),
            element: *element,
            offset,
            shape,
            strides,
        })
    }

    /// Elements, if the tensor lies in one piece.
    pub(super) fn contiguous_elements(&self) -> Option<u64> {
        let mut expected = 1_u64;
        for (&size, &stride) in self.shape.iter().zip(&self.strides).rev() {
            if size > 1 && stride != expected {
                return None;
            }
            expected = expected.checked_mul(size)?;
        }
        Some(expected)
    }
}

/// A value of the machine. Containers are shared, as pickles refer to them again.
#[derive(Debug, Clone)]
pub(super) enum Object {
    Int(i64),
    Text(Rc<str>),
    Tuple(Rc<Vec<Object>>),
    Storage {
        key: Rc<str>,
        element: Element,
    },
    Tensor(Rc<TensorDescription>),
    Dict(DictId),
    List(ListId),
    Global(Rc<str>),
    /// Something that is there but has no bearing on tensors.
    Opaque,
}

/// Index of a dictionary in the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DictId(pub(super) usize);

/// Index of a list in the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ListId(pub(super) usize);

/// What a pickle described.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) root: Object,
    /// Bytes that the pickle took.
    pub(super) length: usize,
    dicts: Vec<Vec<(Object, Object)>>,
    lists: Vec<Vec<Object>>,
}

impl Outcome {
    pub(super) fn new(
        root: Object,
        length: usize,
        dicts: Vec<Vec<(Object, Object)>>,
        lists: Vec<Vec<Object>>,
    ) -> Self {
        Self { root, length, dicts, lists }
    }

    /// All tensors, under their dotted names.
    pub(super) fn tensors(&self) -> Result<Vec<(String, TensorDescription)>, String> {
        let mut found = Vec::new();
        let Object::Dict(root) = self.root else {
            return Err("it is not a dictionary of tensors".to_owned());
        };
        let mut entries_left = ENTRIES_MAX;
        self.collect(root, "", 0, &mut entries_left, &mut found)?;
        Ok(found)
    }

    /// The texts of a list, in order.
    pub(super) fn texts(&self) -> Option<Vec<String>> {
        let Object::List(ListId(list)) = self.root else { return None };
        let items = self.lists.get(list)?.iter();
        items
            .map(|item| match item {
                Object::Text(text) => Some(text.to_string()),
                _ => None,
            })
            .collect()
    }

    fn collect(
        &self,
        DictId(dict): DictId,
        prefix: &str,
        depth: usize,
        entries_left: &mut usize,
        found: &mut Vec<(String, TensorDescription)>,
    ) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err(format!("dictionaries are nested more than {DEPTH_MAX} deep"));
        }
        for (key, value) in self.dicts.get(dict).into_iter().flatten() {
            *entries_left = entries_left.checked_sub(1).ok_or("it has too many entries")?;
            let Object::Text(key) = key else { continue };
            match value {
                Object::Tensor(tensor) => {
                    found.push((format!("{prefix}{key}"), TensorDescription::clone(tensor)))
                }
                Object::Dict(inner) => {
                    self.collect(*inner, &format!("{prefix}{key}."), depth + 1, entries_left, found)?
                }
                // Counters and settings of a training run.
                _ => {}
            }
        }
        Ok(())
    }
}

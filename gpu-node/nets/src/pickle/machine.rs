//! The pickle machine: bytes to dictionaries of tensor descriptions.
//!
//! Instructions as in CPython's `pickletools`, protocols 0 to 5, of which
//! `torch.save` writes those that are here.

use super::object::{DictId, Element, ListId, Object, Outcome, TensorDescription};
use std::collections::HashMap;
use std::rc::Rc;

/// Instructions that one pickle may have: a state dictionary of a thousand tensors takes some 40 each.
const INSTRUCTIONS_MAX: usize = 4_000_000;
/// Runs one pickle.
///
/// # Errors
/// It ends early, has an instruction or a name that a state dictionary has no
/// use for, or misuses the stack.
pub(super) fn run(bytes: &[u8]) -> Result<Outcome, String> {
    let mut machine = Machine { bytes, at: 0, stack: Vec::new(), marks: Vec::new(), ..Machine::default() };
    for _ in 0..INSTRUCTIONS_MAX {
        if let Some(root) = machine.step()? {
            return Ok(Outcome::new(root, machine.at, machine.dicts, machine.lists));
        }
    }
    Err(format!("its pickle has more than {INSTRUCTIONS_MAX} instructions"))
}

#[derive(Default)]
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Object>,
    marks: Vec<usize>,
    memo: HashMap<u64, Object>,
    dicts: Vec<Vec<(Object, Object)>>,
    lists: Vec<Vec<Object>>,
}

impl<'a> Machine<'a> {
    /// One instruction; the result after the last.
    fn step(&mut self) -> Result<Option<Object>, String> {
        let instruction = self.byte()?;
        match instruction {
            // PROTO, FRAME
            0x80 => drop(self.byte()?),
            0x95 => drop(self.take(8)?),
            b'(' => self.marks.push(self.stack.len()),
            b'.' => return self.pop().map(Some),
            b'0' => drop(self.pop()?),
            // None, True, False
            b'N' | 0x88 | 0x89 => self.stack.push(Object::Opaque),
            b'K' => {
                let value = self.byte()?;
                self.stack.push(Object::Int(value.into()));
            }
            b'M' => {
                let value = self.number(2)?;
                self.stack.push(Object::Int(value as i64));
            }
            b'J' => {
                let value = self.number(4)? as u32;
                self.stack.push(Object::Int(value.cast_signed().into()));
            }
            0x8a => {
                let length = usize::from(self.byte()?);
                let value = long(self.take(length)?);
                self.stack.push(value);
            }
            // A float, which no tensor has
            b'G' => {
                self.take(8)?;
                self.stack.push(Object::Opaque);
            }
            b'X' => {
                let length = self.number(4)? as usize;
                self.text(length)?;
            }
            0x8c => {
                let length = usize::from(self.byte()?);
                self.text(length)?;
            }
            b'U' => {
                let length = usize::from(self.byte()?);
                self.text(length)?;
            }
            b')' => self.stack.push(Object::Tuple(Rc::default())),
            b't' => {
                let items = self.since_mark()?;
                self.stack.push(Object::Tuple(Rc::new(items)));
            }
            0x85..=0x87 => {
                let count = usize::from(instruction - 0x84);
                let at = self.stack.len().checked_sub(count).ok_or_else(underflow)?;
                let items = self.stack.split_off(at);
                self.stack.push(Object::Tuple(Rc::new(items)));
            }
            b'}' => self.new_dict(),
            b']' => {
                self.lists.push(Vec::new());
                self.stack.push(Object::List(ListId(self.lists.len() - 1)));
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.since_mark()?;
                self.append(items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(vec![key, value])?;
            }
            b'u' => {
                let items = self.since_mark()?;
                self.set(items)?;
            }
            // BINPUT, LONG_BINPUT, MEMOIZE; BINGET, LONG_BINGET
            b'q' => {
                let index = self.number(1)?;
                self.memoize(index)?;
            }
            b'r' => {
                let index = self.number(4)?;
                self.memoize(index)?;
            }
            0x94 => self.memoize(self.memo.len() as u64)?,
            b'h' => {
                let index = self.number(1)?;
                self.recall(index)?;
            }
            b'j' => {
                let index = self.number(4)?;
                self.recall(index)?;
            }
            b'c' => {
                let name = format!("{}.{}", self.line()?, self.line()?);
                self.global(&name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Object::Text(name), Object::Text(module)) = (name, module) else {
                    return Err(underflow());
                };
                self.global(&format!("{module}.{name}"))?;
            }
            b'R' => self.call()?,
            // BUILD: the state of an ordered dictionary is its attributes, which hold no tensors
            b'b' => drop(self.pop()?),
            b'Q' => self.persistent()?,
            other => {
                return Err(format!(
                    "its pickle has the instruction {other:#04x}, which no state dictionary needs"
                ));
            }
        }
        Ok(None)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(length).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| "its pickle ends early".to_owned())?;
        let part = &self.bytes[self.at..end];
        self.at = end;
        Ok(part)
    }

    /// Little-endian, unsigned.
    fn number(&mut self, bytes: usize) -> Result<u64, String> {
        Ok(self.take(bytes)?.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    fn line(&mut self) -> Result<String, String> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|&byte| byte == b'\n').ok_or("its pickle ends early")?;
        let line = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.at += 1;
        Ok(line)
    }

    fn text(&mut self, length: usize) -> Result<(), String> {
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| "a name in it is not UTF-8")?;
        self.stack.push(Object::Text(text.into()));
        Ok(())
    }

    fn pop(&mut self) -> Result<Object, String> {
        self.stack.pop().ok_or_else(underflow)
    }

    fn since_mark(&mut self) -> Result<Vec<Object>, String> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len()).ok_or_else(underflow)?;
        Ok(self.stack.split_off(mark))
    }

    fn new_dict(&mut self) {
        self.dicts.push(Vec::new());
        self.stack.push(Object::Dict(DictId(self.dicts.len() - 1)));
    }

    fn append(&mut self, items: Vec<Object>) -> Result<(), String> {
        let Some(Object::List(ListId(list))) = self.stack.last() else { return Err(underflow()) };
        self.lists.get_mut(*list).ok_or_else(underflow)?.extend(items);
        Ok(())
    }

    fn set(&mut self, items: Vec<Object>) -> Result<(), String> {
        let Some(Object::Dict(DictId(dict))) = self.stack.last() else {
            // Attributes of something that is no dictionary.
            return if matches!(self.stack.last(), Some(Object::Opaque)) { Ok(()) } else { Err(underflow()) };
        };
        let dict = self.dicts.get_mut(*dict).ok_or_else(underflow)?;
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            dict.push((key, value));
        }
        Ok(())
    }

    fn memoize(&mut self, index: u64) -> Result<(), String> {
        let top = self.stack.last().ok_or_else(underflow)?.clone();
        self.memo.insert(index, top);
        Ok(())
    }

    fn recall(&mut self, index: u64) -> Result<(), String> {
        let object = self.memo.get(&index).ok_or_else(underflow)?.clone();
        self.stack.push(object);
        Ok(())
    }

    /// The few names that a state dictionary needs.
    fn global(&mut self, name: &str) -> Result<(), String> {
        let known = matches!(
            name,
            "collections.OrderedDict"
                | "torch._utils._rebuild_tensor_v2"
                | "torch._utils._rebuild_tensor"
                | "torch._utils._rebuild_parameter"
        ) || name.strip_prefix("torch.").and_then(Element::of_storage).is_some();
        if !known {
            return Err(format!("it refers to {name}, which is not run"));
        }
        self.stack.push(Object::Global(name.into()));
        Ok(())
    }

    fn call(&mut self) -> Result<(), String> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let (Object::Tuple(arguments), Object::Global(name)) = (arguments, function) else {
            return Err(underflow());
        };
        match (&*name, arguments.as_slice()) {
            ("collections.OrderedDict", []) => self.new_dict(),
            (
                "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor",
                [storage, offset, shape, strides, ..],
            ) => {
                let tensor = TensorDescription::new(storage, offset, shape, strides)
                    .ok_or("a tensor in it is described wrongly")?;
                self.stack.push(Object::Tensor(Rc::new(tensor)));
            }
            ("torch._utils._rebuild_parameter", [tensor @ Object::Tensor(_), ..]) => {
                self.stack.push(tensor.clone())
            }
            _ => return Err(format!("it calls {name} in a way that no state dictionary does")),
        }
        Ok(())
    }

    /// `("storage", class, key, location, elements)`, which stands for the storage itself.
    fn persistent(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let described = match &id {
            Object::Tuple(parts) => match parts.as_slice() {
                [Object::Text(kind), Object::Global(class), Object::Text(key), ..]
                    if &**kind == "storage" =>
                {
                    class.strip_prefix("torch.").and_then(Element::of_storage).map(|element| (key, element))
                }
                _ => None,
            },
            _ => None,
        };
        let (key, element) = described.ok_or("a storage in it is described wrongly")?;
        self.stack.push(Object::Storage { key: Rc::clone(key), element });
        Ok(())
    }
}

fn underflow() -> String {
    "its pickle misuses the stack".to_owned()
}

/// A little-endian number in two's complement; one that is too large for a size has no bearing on tensors.
fn long(bytes: &[u8]) -> Object {
    if bytes.len() > size_of::<i64>() {
        return Object::Opaque;
    }
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut whole = [if negative { 0xff } else { 0 }; size_of::<i64>()];
    whole[..bytes.len()].copy_from_slice(bytes);
    Object::Int(i64::from_le_bytes(whole))
}

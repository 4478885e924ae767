//! Values of rows as tagged fields: a format byte, then `tag u8, length (LEB128), bytes` for each field.
//!
//! A field that is not there costs nothing, a list is a tag that comes again, and what a tag means never changes. A tag that is not
//! known is an error: rows of a later schema are refused before it comes to that.

use crate::{Error, Result};

const FORMAT: u8 = 1;

/// A value being built.
#[derive(Clone, Debug)]
pub(super) struct Fields(Vec<u8>);

impl Default for Fields {
    fn default() -> Self {
        Self(vec![FORMAT])
    }
}

impl Fields {
    pub(super) fn bytes(&mut self, tag: u8, bytes: &[u8]) -> &mut Self {
        self.0.push(tag);
        push_len(&mut self.0, bytes.len());
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn text(&mut self, tag: u8, text: &str) -> &mut Self {
        self.bytes(tag, text.as_bytes())
    }

    pub(super) fn number(&mut self, tag: u8, number: u64) -> &mut Self {
        // Without the zeros in front.
        let bytes = number.to_be_bytes();
        self.bytes(tag, &bytes[number.leading_zeros() as usize / 8..])
    }

    pub(super) fn optional_text(&mut self, tag: u8, text: Option<&str>) -> &mut Self {
        text.into_iter().for_each(|text| _ = self.text(tag, text));
        self
    }

    pub(super) fn optional_number(&mut self, tag: u8, number: Option<u64>) -> &mut Self {
        number.into_iter().for_each(|number| _ = self.number(tag, number));
        self
    }

    /// A name and what it stands for.
    pub(super) fn pair(&mut self, tag: u8, name: &str, value: &str) -> &mut Self {
        let mut pair = Vec::with_capacity(name.len() + value.len() + 2);
        push_len(&mut pair, name.len());
        pair.extend_from_slice(name.as_bytes());
        pair.extend_from_slice(value.as_bytes());
        self.bytes(tag, &pair)
    }

    pub(super) fn into_value(self) -> Vec<u8> {
        self.0
    }
}

fn push_len(bytes: &mut Vec<u8>, len: usize) {
    let mut rest = len;
    while rest >= 0x80 {
        bytes.push((rest as u8 & 0x7f) | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

/// One field as it was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    pub(super) tag: u8,
    pub(super) bytes: &'a [u8],
    what: &'static str,
}

/// The fields of a value, in order.
#[derive(Clone, Debug)]
pub(super) struct ReadFields<'a> {
    rest: &'a [u8],
    what: &'static str,
}

/// Begins to read a value; `what` is for errors.
pub(super) fn read<'a>(value: &'a [u8], what: &'static str) -> Result<ReadFields<'a>> {
    match value.split_first() {
        Some((&FORMAT, rest)) => Ok(ReadFields { rest, what }),
        _ => Err(malformed(what, "its format is of a later release")),
    }
}

pub(super) fn malformed(what: &'static str, reason: &'static str) -> Error {
    Error::Malformed { what, reason }
}

fn take_len(rest: &mut &[u8], what: &'static str) -> Result<usize> {
    let mut len = 0_usize;
    for shift in [0, 7, 14, 21] {
        let (&byte, after) = rest.split_first().ok_or(malformed(what, "it ends early"))?;
        *rest = after;
        len |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(len);
        }
    }
    Err(malformed(what, "a length in it is out of range"))
}

fn take<'a>(rest: &mut &'a [u8], len: usize, what: &'static str) -> Result<&'a [u8]> {
    let (bytes, after) = rest.split_at_checked(len).ok_or(malformed(what, "it ends early"))?;
    *rest = after;
    Ok(bytes)
}

impl<'a> Iterator for ReadFields<'a> {
    type Item = Result<Field<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&tag, rest) = self.rest.split_first()?;
        self.rest = rest;
        let what = self.what;
        let len = take_len(&mut self.rest, what);
        let bytes = len.and_then(|len| take(&mut self.rest, len, what));
        if bytes.is_err() {
            self.rest = &[];
        }
        Some(bytes.map(|bytes| Field { tag, bytes, what }))
    }
}

impl<'a> Field<'a> {
    pub(super) fn str(&self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes).map_err(|_| self.malformed("a text in it is no text"))
    }

    pub(super) fn text(&self) -> Result<String> {
        self.str().map(str::to_owned)
    }

    pub(super) fn number(&self) -> Result<u64> {
        if self.bytes.len() > size_of::<u64>() {
            return Err(self.malformed("a number in it is out of range"));
        }
        Ok(self.bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    pub(super) fn small<T: TryFrom<u64>>(&self) -> Result<T> {
        T::try_from(self.number()?).map_err(|_| self.malformed("a number in it is out of range"))
    }

    pub(super) fn fixed<const N: usize>(&self) -> Result<[u8; N]> {
        self.bytes
            .try_into()
            .map_err(|_| self.malformed("a field of it has another length"))
    }

    pub(super) fn pair(&self) -> Result<(String, String)> {
        let mut rest = self.bytes;
        let len = take_len(&mut rest, self.what)?;
        let name = take(&mut rest, len, self.what)?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| self.malformed("a text is no text"));
        Ok((text(name)?, text(rest)?))
    }

    /// The error for a tag that nobody knows.
    pub(super) fn unknown(&self) -> Error {
        self.malformed("a field of it is of a later release")
    }

    pub(super) fn malformed(&self, reason: &'static str) -> Error {
        malformed(self.what, reason)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn fields_are_read_as_they_were_written(number in any::<u64>(), text in ".{0,300}", name in ".{0,9}") {
            let mut fields = Fields::default();
            fields.number(1, number).text(2, &text).pair(3, &name, &text);
            let value = fields.into_value();
            let fields: Vec<Field<'_>> = read(&value, "value").unwrap().collect::<Result<_>>().unwrap();
            prop_assert_eq!(fields.iter().map(|field| field.tag).collect::<Vec<_>>(), [1, 2, 3]);
            prop_assert_eq!(fields[0].number().unwrap(), number);
            prop_assert_eq!(fields[1].str().unwrap(), &text);
            prop_assert_eq!(fields[2].pair().unwrap(), (name, text));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(fields) = read(&bytes, "value") {
                for field in fields.flatten() {
                    let _ = (field.number(), field.text(), field.pair(), field.fixed::<3>());
                }
            }
        }
    }
}

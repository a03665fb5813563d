//! Nodes → the types of the grammar, through serde, without stopping at an error.
//!
//! A `Field` catches the error of what it holds, reports it with its place and lets its neighbours
//! go on; unknown keys are reported where a struct says which keys it knows. A scalar keeps its text
//! until a type asks for something else, so `1.10` and `no` are what was written.

use std::cell::RefCell;

use serde::Deserialize;
use serde::de::value::{StrDeserializer, U8Deserializer, U32Deserializer};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use super::diagnostic::Sink;
use super::field::{BAD, COMPOUND, EITHER, FIELD, NOTHING, SCALAR};
use super::mismatch::{Core, Cx, Error, What, core, mismatch};
use super::suggest::one_of;
use super::tree::{Kind, NodeId, Scalar, Tree};

/// Decodes the tree under `root`; everything that does not fit is reported to `sink`.
pub(super) fn decode<T: for<'de> Deserialize<'de> + Default>(
    tree: &Tree<'_>,
    root: NodeId,
    sink: &mut Sink,
) -> T {
    let cx = Cx {
        tree,
        root,
        sink: RefCell::new(sink),
    };
    let de = De {
        cx: &cx,
        at: root,
        item: false,
    };
    T::deserialize(de).unwrap_or_else(|error| {
        cx.report(error, root);
        T::default()
    })
}

/// A node as a serde deserializer.
#[derive(Clone, Copy)]
struct De<'a, 's> {
    cx: &'a Cx<'a, 's>,
    /// As written: an alias is a place of its own.
    at: NodeId,
    /// An element or key, which cannot be left empty.
    item: bool,
}

impl<'a, 's> De<'a, 's> {
    fn child(self, at: NodeId, item: bool) -> Self {
        Self { at, item, ..self }
    }

    fn kind(self) -> &'a Kind<'s> {
        self.cx.tree.kind(self.at)
    }

    fn shape(self) -> u8 {
        match self.kind() {
            Kind::Bad => BAD,
            Kind::Seq(_) | Kind::Map(_) => COMPOUND,
            _ if !self.item && self.cx.tree.is_null(self.at) => NOTHING,
            _ => SCALAR,
        }
    }

    /// The scalar here, or the error that something else was `expected`.
    fn scalar(self, expected: &'static str) -> Result<&'a Scalar<'s>, Error> {
        match self.kind() {
            Kind::Scalar(scalar) => Ok(scalar),
            Kind::Bad => Err(What::Silent.into()),
            _ => Err(self.place(mismatch(expected))),
        }
    }

    fn place(self, mut error: Error) -> Error {
        error.at.get_or_insert(self.at);
        error
    }

    fn int(self) -> Result<i128, Error> {
        const EXPECTED: &str = "a whole number";
        let scalar = self.scalar(EXPECTED)?;
        match core(scalar.text.trim()) {
            Core::Int(number) if scalar.plain || scalar.interpolated => Ok(number),
            Core::Int(_) => Err(self.place(
                What::Type {
                    expected: EXPECTED.into(),
                    help: Some("leave the quotes out"),
                }
                .into(),
            )),
            _ => Err(self.place(mismatch(EXPECTED))),
        }
    }

    fn map<V: Visitor<'a>>(
        self,
        fields: Option<&'static [&'static str]>,
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.kind() {
            Kind::Map(entries) => {
                let access = Map {
                    de: self,
                    fields,
                    entries: entries.iter(),
                    value: None,
                };
                visitor.visit_map(access).map_err(|error| self.place(error))
            }
            Kind::Bad => Err(What::Silent.into()),
            _ => Err(self.place(mismatch("a map"))),
        }
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $int:ty),*) => {$(
        fn $method<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
            let number = self.int()?;
            let number = <$int>::try_from(number).map_err(|_| {
                let message = format!("{number} is out of range: it has to be from {} to {}", <$int>::MIN, <$int>::MAX);
                self.place(What::Value(message).into())
            })?;
            visitor.$visit(number).map_err(|error| self.place(error))
        }
    )*};
}

impl<'a> Deserializer<'a> for De<'a, '_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        let scalar = match self.kind() {
            Kind::Seq(_) => return self.deserialize_seq(visitor),
            Kind::Map(_) => return self.map(None, visitor),
            _ => self.scalar("a value")?,
        };
        let done = match core(&scalar.text) {
            _ if !scalar.plain => visitor.visit_str(&scalar.text),
            _ if self.cx.tree.is_null(self.at) => visitor.visit_unit(),
            Core::Bool(value) => visitor.visit_bool(value),
            Core::Int(value) => match (u64::try_from(value), i64::try_from(value)) {
                (Ok(value), _) => visitor.visit_u64(value),
                (_, Ok(value)) => visitor.visit_i64(value),
                _ => visitor.visit_f64(value as f64),
            },
            Core::Float(value) => visitor.visit_f64(value),
            Core::Text => visitor.visit_str(&scalar.text),
        };
        done.map_err(|error| self.place(error))
    }

    fn deserialize_bool<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        const EXPECTED: &str = "`true` or `false`";
        let scalar = self.scalar(EXPECTED)?;
        match core(scalar.text.trim()) {
            Core::Bool(value) if scalar.plain || scalar.interpolated => {
                visitor.visit_bool(value).map_err(|error| self.place(error))
            }
            _ => Err(self.place(mismatch(EXPECTED))),
        }
    }

    integers! {
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64, deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64
    }

    fn deserialize_f64<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        match core(&self.scalar("a number")?.text) {
            Core::Int(value) => visitor.visit_f64(value as f64),
            Core::Float(value) => visitor.visit_f64(value),
            _ => Err(self.place(mismatch("a number"))),
        }
    }

    fn deserialize_str<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        let scalar = self.scalar("text")?;
        let done = visitor.visit_str(&scalar.text);
        done.map_err(|error| self.place(error))
    }

    fn deserialize_string<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.cx.tree.is_null(self.at) {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'a>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        let catch = match name {
            FIELD => true,
            EITHER => false,
            _ => return visitor.visit_newtype_struct(self),
        };
        visitor.visit_seq(Parts {
            de: self,
            step: 0,
            catch,
        })
    }

    fn deserialize_seq<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.kind() {
            Kind::Seq(items) => visitor
                .visit_seq(Seq {
                    de: self,
                    items: items.iter(),
                })
                .map_err(|error| self.place(error)),
            Kind::Bad => Err(What::Silent.into()),
            _ => Err(self.place(mismatch("a list"))),
        }
    }

    fn deserialize_map<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        self.map(None, visitor)
    }

    fn deserialize_struct<V: Visitor<'a>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.map(Some(fields), visitor)
    }

    fn deserialize_enum<V: Visitor<'a>>(
        self,
        _: &'static str,
        expected: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let scalar = match self.kind() {
            Kind::Scalar(scalar) => scalar,
            Kind::Bad => return Err(What::Silent.into()),
            _ => return Err(self.place(mismatch(one_of(expected)))),
        };
        if !expected.contains(&&*scalar.text) {
            return Err(self.place(What::Choice { expected }.into()));
        }
        visitor.visit_enum(Choice(&scalar.text))
    }

    fn deserialize_ignored_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_identifier<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    serde::forward_to_deserialize_any! {
        <W: Visitor<'a>>
        i128 u128 f32 char bytes byte_buf unit unit_struct tuple tuple_struct
    }
}

/// Place, shape and value of a node, for [`Field`] and [`Either`].
struct Parts<'a, 's> {
    de: De<'a, 's>,
    step: u8,
    /// Report the value's error and go on.
    catch: bool,
}

impl<'a> SeqAccess<'a> for Parts<'a, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'a>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        self.step += 1;
        match self.step {
            1 => seed
                .deserialize(U32Deserializer::new(self.de.at.0))
                .map(Some),
            2 => seed
                .deserialize(U8Deserializer::new(self.de.shape()))
                .map(Some),
            _ if self.catch && self.de.shape() == NOTHING => Ok(None),
            _ => match seed.deserialize(self.de) {
                Err(error) if self.catch => {
                    self.de.cx.report(error, self.de.at);
                    Ok(None)
                }
                // A list where a map could be: the short form would have been right too.
                Err(Error {
                    at: Some(at),
                    what: What::Type { expected, help },
                }) if at == self.de.at && self.de.shape() == COMPOUND => {
                    let expected = format!("a single value or {expected}").into();
                    let what = What::Type { expected, help };
                    Err(Error { at: Some(at), what })
                }
                done => done.map(Some),
            },
        }
    }
}

struct Seq<'a, 's> {
    de: De<'a, 's>,
    items: std::slice::Iter<'a, NodeId>,
}

impl<'a> SeqAccess<'a> for Seq<'a, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'a>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let next = self.items.next();
        next.map(|item| seed.deserialize(self.de.child(*item, true)))
            .transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Map<'a, 's> {
    de: De<'a, 's>,
    /// The keys that there can be; `None`: any.
    fields: Option<&'static [&'static str]>,
    entries: std::slice::Iter<'a, (NodeId, NodeId)>,
    value: Option<NodeId>,
}

impl<'a> MapAccess<'a> for Map<'a, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'a>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        for (key, value) in self.entries.by_ref() {
            if let Some(fields) = self.fields {
                let known = self.de.cx.tree.text(*key);
                let Some(known) = known.filter(|name| fields.contains(name)) else {
                    self.de.cx.unknown(*key, fields);
                    continue;
                };
                self.value = Some(*value);
                let name: StrDeserializer<'_, Error> = known.into_deserializer();
                return seed.deserialize(name).map(Some);
            }
            self.value = Some(*value);
            return seed.deserialize(self.de.child(*key, true)).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let value = self.value.take().unwrap_or(self.de.at);
        seed.deserialize(self.de.child(value, false))
    }
}

/// A word as a variant without data.
struct Choice<'a>(&'a str);

impl<'a> EnumAccess<'a> for Choice<'a> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'a>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let word: StrDeserializer<'_, Error> = self.0.into_deserializer();
        Ok((seed.deserialize(word)?, self))
    }
}

impl<'a> VariantAccess<'a> for Choice<'a> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }
    fn newtype_variant_seed<T: DeserializeSeed<'a>>(self, _: T) -> Result<T::Value, Error> {
        Err(mismatch("a word"))
    }
    fn tuple_variant<V: Visitor<'a>>(self, _: usize, _: V) -> Result<V::Value, Error> {
        Err(mismatch("a word"))
    }
    fn struct_variant<V: Visitor<'a>>(self, _: &[&str], _: V) -> Result<V::Value, Error> {
        Err(mismatch("a word"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::manifest::diagnostic::Source;
    use crate::manifest::parse::parse;

    fn value(text: &str) -> serde_yaml::Value {
        let sources = Arc::new(vec![Source::new("x".into(), text.to_owned())]);
        let mut sink = Sink::new(Arc::clone(&sources));
        let mut tree = Tree::default();
        let root = parse(&mut tree, 0, &sources[0].text, &mut sink).root;
        let value = decode(&tree, root.unwrap(), &mut sink);
        let report = sink.finish();
        assert!(
            report.diagnostics.is_empty(),
            "{}",
            report.render_text(false, 80)
        );
        value
    }

    /// serde_yaml is a second opinion on what a text holds.
    #[test]
    fn reads_the_same_data_as_serde_yaml() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/manifest/good");
        let mut texts: Vec<String> = [
            "a: [1, -2, +3, 0x1F, 0o17, 1.5, 1e3, .5, .inf, true, null, ~, no, 1_000, '1']",
            "a: &a { x: 1, y: [2] }\nb: { <<: *a, x: 3 }\nc: *a\n",
            "a: |\n  one\n  two\nb: >-\n  one\n  two\nc: \"\\u00e9\\n\"\nd:\n",
            "a: 18446744073709551615\nb: -9223372036854775808\nc: 1.10\nd: '-'\n",
            "a: 2026-01-01\nb: 12:30:00\nc: on\n",
        ]
        .map(str::to_owned)
        .to_vec();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path
                .extension()
                .is_some_and(|extension| extension == "yaml")
            {
                texts.push(std::fs::read_to_string(path).unwrap());
            }
        }
        for text in texts {
            let mut expected: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
            expected.apply_merge().unwrap();
            assert_eq!(value(&text), expected, "{text}");
        }
    }
}

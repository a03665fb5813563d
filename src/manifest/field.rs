//! The shapes that the grammar is made of: values, lists and maps whose parts can be wrong on their
//! own, and values with a short and a long form.
//!
//! They ask the deserializer for place, shape and value by a name that only `decode` knows.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::tree::NodeId;

/// One value with its place. Everything that can be wrong on its own is in one of these.
#[derive(Debug)]
pub(super) struct Field<T> {
    /// Where it is; `None` if it is not there.
    pub at: Option<NodeId>,
    /// What it is; `None` if it is absent, empty or bad.
    pub value: Option<T>,
    /// It is there and wrong, which has been said.
    pub bad: bool,
}

impl<T> Field<T> {
    /// The value and its place, if there is a good one.
    pub fn get(&self) -> Option<(&T, NodeId)> {
        Some((self.value.as_ref()?, self.at?))
    }

    /// Whether there is anything: good or bad, but not empty.
    pub fn given(&self) -> bool {
        self.value.is_some() || self.bad
    }
}

impl<T> Default for Field<T> {
    fn default() -> Self {
        Self {
            at: None,
            value: None,
            bad: false,
        }
    }
}

/// A list whose elements can be wrong on their own.
#[derive(Debug)]
pub(super) struct List<T>(pub Vec<Field<T>>);

/// A map by name whose values can be wrong on their own.
#[derive(Debug)]
pub(super) struct Dict<T>(pub Vec<(Key, Field<T>)>);

/// A map's key and its place.
#[derive(Debug)]
pub(super) struct Key {
    pub name: String,
    pub at: NodeId,
}

/// A short form (text or number) or a long form (list or map) of the same thing.
#[derive(Debug)]
pub(super) enum Either<S, L> {
    Short(S),
    Long(L),
}

pub(super) const FIELD: &str = "\0field";
pub(super) const EITHER: &str = "\0either";

// What the deserializer hands to `Field` and `Either`: place, shape, value.
pub(super) const NOTHING: u8 = 0;
pub(super) const SCALAR: u8 = 1;
pub(super) const COMPOUND: u8 = 2;
pub(super) const BAD: u8 = 3;

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Parts<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Parts<T> {
            type Value = Field<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Field<T>, A::Error> {
                let at = parts.next_element()?.map(NodeId);
                let shape: Option<u8> = parts.next_element()?;
                let value = parts.next_element()?;
                let bad = value.is_none() && shape != Some(NOTHING);
                Ok(Field { at, value, bad })
            }
        }
        d.deserialize_newtype_struct(FIELD, Parts(PhantomData))
    }
}

impl<'de, S: Deserialize<'de>, L: Deserialize<'de>> Deserialize<'de> for Either<S, L> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Parts<S, L>(PhantomData<(S, L)>);
        impl<'de, S: Deserialize<'de>, L: Deserialize<'de>> Visitor<'de> for Parts<S, L> {
            type Value = Either<S, L>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Self::Value, A::Error> {
                let _: Option<u32> = parts.next_element()?;
                let shape: Option<u8> = parts.next_element()?;
                let found = if shape == Some(COMPOUND) {
                    parts.next_element()?.map(Either::Long)
                } else {
                    parts.next_element()?.map(Either::Short)
                };
                found.ok_or_else(|| serde::de::Error::custom("no value"))
            }
        }
        d.deserialize_newtype_struct(EITHER, Parts(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Vec::deserialize(d).map(Self)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Dict<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Dict<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Dict<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(key) = map.next_key::<Field<String>>()? {
                    let value = map.next_value()?;
                    if let Field {
                        at: Some(at),
                        value: Some(name),
                        ..
                    } = key
                    {
                        entries.push((Key { name, at }, value));
                    }
                }
                Ok(Dict(entries))
            }
        }
        d.deserialize_map(Entries(PhantomData))
    }
}

macro_rules! schema_of_inner {
    ($name:ident < $($param:ident),+ > , $generator:ident => $schema:expr) => {
        impl<$($param: JsonSchema),+> JsonSchema for $name<$($param),+> {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema($generator: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}
schema_of_inner!(Field<T>, g => g.subschema_for::<T>());
schema_of_inner!(List<T>, g => schemars::json_schema!({
    "type": "array",
    "items": g.subschema_for::<T>()
}));
schema_of_inner!(Dict<T>, g => schemars::json_schema!({
    "type": "object",
    "additionalProperties": g.subschema_for::<T>()
}));
schema_of_inner!(Either<S, L>, g => schemars::json_schema!({
    "anyOf": [g.subschema_for::<S>(), g.subschema_for::<L>()]
}));

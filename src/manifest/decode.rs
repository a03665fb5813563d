//! Nodes → the types of the grammar, through serde, without stopping at an error.
//!
//! A [`Field`] catches the error of what it holds, reports it with its place and lets its neighbours
//! go on; unknown keys are reported where a struct says which keys it knows. A scalar keeps its text
//! until a type asks for something else, so `1.10` and `no` are what was written.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::value::{StrDeserializer, U8Deserializer, U32Deserializer};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};

use super::codes;
use super::diagnostic::{Draft, Sink};
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

const FIELD: &str = "\0field";
const EITHER: &str = "\0either";

// What the deserializer hands to `Field` and `Either`: place, shape, value.
const NOTHING: u8 = 0;
const SCALAR: u8 = 1;
const COMPOUND: u8 = 2;
const BAD: u8 = 3;

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

/// What decoding shares.
struct Cx<'a, 's> {
    tree: &'a Tree<'s>,
    root: NodeId,
    sink: RefCell<&'a mut Sink>,
}

/// What is wrong with a value; where, once a deserializer has seen it.
#[derive(Debug)]
pub(super) struct Error {
    at: Option<NodeId>,
    what: What,
}

#[derive(Debug)]
enum What {
    /// It has been said.
    Silent,
    Type {
        expected: Cow<'static, str>,
        help: Option<&'static str>,
    },
    Choice {
        expected: &'static [&'static str],
    },
    Value(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Silent => f.write_str("bad value"),
            What::Type { expected, .. } => write!(f, "expected {expected}"),
            What::Choice { expected } => write!(f, "expected {}", one_of(expected)),
            What::Value(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        What::Value(message.to_string()).into()
    }
    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        mismatch(expected.to_string())
    }
}

impl From<What> for Error {
    fn from(what: What) -> Self {
        Self { at: None, what }
    }
}

fn mismatch(expected: impl Into<Cow<'static, str>>) -> Error {
    let expected = expected.into();
    What::Type {
        expected,
        help: None,
    }
    .into()
}

impl Cx<'_, '_> {
    fn report(&self, error: Error, fallback: NodeId) {
        let at = error.at.unwrap_or(fallback);
        let span = self.tree.span(at);
        let node = self.tree.node(at);
        let text = |key: Option<NodeId>| self.tree.text(key?);
        let (name, list) = (text(node.key), text(node.list));
        let field = match name {
            Some(name) => format!("`{}`", shorten(name)),
            None if at == self.root => "a manifest".to_owned(),
            None => list.map_or("an entry here".to_owned(), |list| {
                format!("an entry of `{}`", shorten(list))
            }),
        };
        let draft = match error.what {
            What::Silent => return,
            What::Type { expected, help } => {
                let found = found(self.tree, at);
                let message = format!("{field} takes {expected}, but this is {found}");
                let mut draft = Draft::error(codes::WRONG_TYPE, span, message);
                draft = draft.label(format!("expected {expected}"));
                if let Some(help) = help {
                    draft = draft.help(help);
                }
                draft
            }
            What::Choice { expected } => {
                let word = self.tree.text(at).unwrap_or_default();
                let message = format!("`{}` is not a value of {field}", shorten(word));
                let near = self
                    .sink
                    .borrow_mut()
                    .nearest(word, expected.iter().copied());
                Draft::error(codes::BAD_VALUE, span, message)
                    .label(format!("expected {}", one_of(expected)))
                    .suggest(span, near)
            }
            What::Value(message) => Draft::error(codes::BAD_VALUE, span, message),
        };
        self.sink.borrow_mut().push(draft);
    }

    fn unknown(&self, key: NodeId, fields: &'static [&'static str]) {
        let span = self.tree.span(key);
        let word = self.tree.text(key).unwrap_or_default();
        let mut sink = self.sink.borrow_mut();
        let near = alias(word).filter(|word| fields.contains(word));
        let near = near.or_else(|| sink.nearest(word, fields.iter().copied()));
        let message = format!("there is no field `{}` here", shorten(word));
        let draft = Draft::error(codes::UNKNOWN_FIELD, span, message).label("unknown field");
        sink.push(match near {
            Some(near) => draft.suggest(span, Some(near)),
            None => draft.help(format!("the fields here are {}", listed(fields))),
        });
    }
}

/// Words that other tools use for our fields.
fn alias(word: &str) -> Option<&'static str> {
    Some(match word {
        "depends_on" | "dependencies" | "requires" | "after" => "needs",
        "environment" => "env",
        "cwd" | "workdir" | "working_directory" | "dir" => "working_dir",
        "healthcheck" | "health_check" | "readiness" => "health",
        "run" | "script" | "shell" => "command",
        "cpus" | "cpu" => "vcpus",
        "port" => "ports",
        "isolate" => "isolation",
        _ => return None,
    })
}

fn listed(fields: &[&str]) -> String {
    let quoted: Vec<_> = fields.iter().map(|field| format!("`{field}`")).collect();
    quoted.join(", ")
}

fn shorten(word: &str) -> String {
    match word.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &word[..at]),
        None => word.to_owned(),
    }
}

/// What a node is, for people.
fn found(tree: &Tree<'_>, at: NodeId) -> String {
    match tree.kind(at) {
        Kind::Seq(_) => "a list".to_owned(),
        Kind::Map(_) => "a map".to_owned(),
        _ if tree.is_null(at) => "empty".to_owned(),
        Kind::Scalar(scalar) if scalar.plain => match core(&scalar.text) {
            Core::Int(_) | Core::Float(_) => format!("the number {}", shorten(&scalar.text)),
            Core::Bool(_) => format!("`{}`", scalar.text),
            Core::Text => format!("the text `{}`", shorten(&scalar.text)),
        },
        Kind::Scalar(scalar) => format!("the text `{}`", shorten(&scalar.text)),
        _ => "something else".to_owned(),
    }
}

/// A plain scalar by the YAML 1.2 core schema.
enum Core {
    Bool(bool),
    Int(i128),
    Float(f64),
    Text,
}

fn core(text: &str) -> Core {
    match text {
        "true" | "True" | "TRUE" => return Core::Bool(true),
        "false" | "False" | "FALSE" => return Core::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" => return Core::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Core::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Core::Float(f64::NAN),
        _ => {}
    }
    let radix = |prefix, radix| {
        let digits: &str = text.strip_prefix(prefix)?;
        let digits = Some(digits).filter(|digits| !digits.starts_with(['+', '-']))?;
        i128::from_str_radix(digits, radix).ok()
    };
    if let Some(number) = radix("0x", 16).or_else(|| radix("0o", 8)) {
        return Core::Int(number);
    }
    let Some(first) = text.trim_start_matches(['+', '-']).bytes().next() else {
        return Core::Text;
    };
    if !(first.is_ascii_digit() || first == b'.') {
        return Core::Text;
    }
    if let Ok(number) = text.parse() {
        return Core::Int(number);
    }
    let number = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
    match text.parse() {
        Ok(float) if text.chars().all(number) => Core::Float(float),
        _ => Core::Text,
    }
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
    use crate::manifest::tree::parse;

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

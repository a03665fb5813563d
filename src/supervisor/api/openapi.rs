//! The description of the API, made of what the routes are added with: a route cannot be served
//! without being described.

use std::collections::BTreeMap;

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, on};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::Api;
use crate::supervisor::wire::ErrorBody;

const JSON: &str = "application/json";

/// Makes the schema of one type.
type Shape = fn(&mut SchemaGenerator) -> Schema;

/// What one method of one path does, takes and answers.
pub(super) struct Operation {
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    text: Option<&'static str>,
    path: Option<&'static str>,
    query: Option<Shape>,
    headers: Vec<(&'static str, &'static str)>,
    body: Option<(&'static str, Option<Shape>)>,
    answers: Vec<(u16, &'static str, &'static str, Option<Shape>)>,
    errors: Vec<(u16, &'static str)>,
}

impl Operation {
    /// An operation without parameters. `id` is unique and names a client's method.
    pub(super) fn new(id: &'static str, tag: &'static str, summary: &'static str) -> Self {
        Self {
            id,
            tag,
            summary,
            text: None,
            path: None,
            query: None,
            headers: Vec::new(),
            body: None,
            answers: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// What the summary does not say.
    pub(super) fn text(self, text: &'static str) -> Self {
        let text = Some(text);
        Self { text, ..self }
    }

    /// The path to describe, where that is a narrower one than the route's.
    pub(super) fn at(self, path: &'static str) -> Self {
        let path = Some(path);
        Self { path, ..self }
    }

    /// The parameters behind the `?`, one for each field of `T`.
    pub(super) fn query<T: JsonSchema>(self) -> Self {
        let query: Option<Shape> = Some(T::json_schema);
        Self { query, ..self }
    }

    /// An optional header.
    pub(super) fn header(mut self, name: &'static str, text: &'static str) -> Self {
        self.headers.push((name, text));
        self
    }

    /// A JSON body.
    pub(super) fn body<T: JsonSchema>(self) -> Self {
        let body: Option<(_, Option<Shape>)> =
            Some((JSON, Some(SchemaGenerator::subschema_for::<T>)));
        Self { body, ..self }
    }

    /// A body of raw bytes.
    pub(super) fn raw_body(self) -> Self {
        let body = Some(("application/octet-stream", None));
        Self { body, ..self }
    }

    /// A success with a JSON body.
    pub(super) fn answer<T: JsonSchema>(mut self, status: u16, text: &'static str) -> Self {
        let shape: Option<Shape> = Some(SchemaGenerator::subschema_for::<T>);
        self.answers.push((status, text, JSON, shape));
        self
    }

    /// A success with another body.
    pub(super) fn raw_answer(mut self, kind: &'static str, text: &'static str) -> Self {
        self.answers.push((200, text, kind, None));
        self
    }

    /// A refusal, and when it happens.
    pub(super) fn error(mut self, status: u16, text: &'static str) -> Self {
        self.errors.push((status, text));
        self
    }

    fn describe(&self, path: &str, schemas: &mut SchemaGenerator) -> Value {
        let mut parameters: Vec<Value> = path_parameters(path).collect();
        parameters.extend(self.query.iter().flat_map(|shape| query(&shape(schemas))));
        parameters.extend(self.headers.iter().map(|(name, text)| {
            json!({ "name": name, "in": "header", "description": text, "schema": { "type": "string" } })
        }));
        let mut described = Map::new();
        described.insert("operationId".into(), self.id.into());
        described.insert("tags".into(), json!([self.tag]));
        described.insert("summary".into(), self.summary.into());
        if let Some(text) = self.text {
            described.insert("description".into(), text.into());
        }
        if !parameters.is_empty() {
            described.insert("parameters".into(), parameters.into());
        }
        if let Some((kind, shape)) = self.body {
            let content = json!({ kind: { "schema": schema(shape, schemas) } });
            described.insert("requestBody".into(), json!({ "content": content }));
        }
        described.insert("responses".into(), self.responses(schemas));
        Value::Object(described)
    }

    fn responses(&self, schemas: &mut SchemaGenerator) -> Value {
        let mut responses = Map::new();
        for (status, text, kind, shape) in &self.answers {
            let content = json!({ *kind: { "schema": schema(*shape, schemas) } });
            let answer = json!({ "description": text, "content": content });
            responses.insert(status.to_string(), answer);
        }
        let mut errors: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
        for (status, text) in &self.errors {
            errors.entry(*status).or_default().push(text);
        }
        if self.id != "health" {
            let text = "Over TCP: the token is missing or another one";
            errors.entry(401).or_default().push(text);
        }
        let body = schemas.subschema_for::<ErrorBody>();
        for (status, texts) in errors {
            let content = json!({ JSON: { "schema": body } });
            let answer = json!({ "description": texts.join("; "), "content": content });
            responses.insert(status.to_string(), answer);
        }
        Value::Object(responses)
    }
}

fn schema(shape: Option<Shape>, schemas: &mut SchemaGenerator) -> Schema {
    match shape {
        Some(shape) => shape(schemas),
        None => schemars::json_schema!({ "type": "string" }),
    }
}

fn path_parameters(path: &str) -> impl Iterator<Item = Value> {
    let parts = path.split('/');
    let names = parts.filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names.map(|name| {
        json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } })
    })
}

/// One parameter for each property.
fn query(schema: &Schema) -> Vec<Value> {
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let properties = schema.get("properties").and_then(Value::as_object);
    let parameter = |(name, property): (&String, &Value)| {
        let mut property = property.clone();
        let text = property
            .as_object_mut()
            .and_then(|p| p.remove("description"));
        json!({
            "name": name, "in": "query", "required": required.contains(&name.as_str()),
            "description": text.unwrap_or_default(), "schema": property,
        })
    };
    properties.into_iter().flatten().map(parameter).collect()
}

/// The routes with their descriptions.
#[derive(Default)]
pub(super) struct Routes {
    router: Router<Api>,
    operations: Vec<(&'static str, String, Operation)>,
}

impl Routes {
    pub(super) fn get<H, T>(self, path: &'static str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, Api>,
        T: 'static,
    {
        self.add(MethodFilter::GET, "get", path, handler, operation)
    }

    pub(super) fn post<H, T>(self, path: &'static str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, Api>,
        T: 'static,
    {
        self.add(MethodFilter::POST, "post", path, handler, operation)
    }

    pub(super) fn put<H, T>(self, path: &'static str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, Api>,
        T: 'static,
    {
        self.add(MethodFilter::PUT, "put", path, handler, operation)
    }

    pub(super) fn delete<H, T>(self, path: &'static str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, Api>,
        T: 'static,
    {
        self.add(MethodFilter::DELETE, "delete", path, handler, operation)
    }

    fn add<H, T>(
        mut self,
        filter: MethodFilter,
        method: &'static str,
        path: &'static str,
        handler: H,
        operation: Operation,
    ) -> Self
    where
        H: Handler<T, Api>,
        T: 'static,
    {
        self.router = self.router.route(path, on(filter, handler));
        let described = operation.path.unwrap_or(path).replace("{*", "{");
        self.operations.push((method, described, operation));
        self
    }

    pub(super) fn into_router(self) -> Router<Api> {
        self.router
    }

    fn document(self) -> Value {
        let settings = SchemaSettings::draft2020_12()
            .for_serialize()
            .with(|settings| settings.definitions_path = "/components/schemas".into());
        let mut schemas = settings.into_generator();
        let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
        for (method, path, operation) in &self.operations {
            let described = operation.describe(path, &mut schemas);
            let methods = paths.entry(path.clone()).or_default();
            methods.insert((*method).to_owned(), described);
        }
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "gabion supervisor",
                "version": "1",
                "description": "What the supervisor of one sandbox serves: the iris /v1 data plane, \
                    processes, and extensions. Over its Unix socket without a token, over TCP with one.",
                "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
            },
            "servers": [{ "url": "/" }],
            "security": [{ "token": [] }, {}],
            "paths": paths,
            "components": {
                "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
                "schemas": schemas.take_definitions(true),
            },
        })
    }
}

/// The OpenAPI 3.1 document of the API.
pub fn document() -> Value {
    super::routes().document()
}

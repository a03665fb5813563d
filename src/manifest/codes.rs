//! Every kind of problem that a manifest can have, in one table.

/// One kind of problem.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// `M001` …; never used for anything else later.
    pub id: &'static str,
    /// A few words, for titles.
    pub title: &'static str,
    /// One sentence: what is wrong and what to do.
    pub explanation: &'static str,
}

macro_rules! codes {
    ($($name:ident $id:literal $title:literal $explanation:literal;)*) => {
        $(
            #[doc = $explanation]
            pub(super) const $name: &Code =
                &Code { id: $id, title: $title, explanation: $explanation };
        )*
        /// The whole table, in order of id.
        pub const CODES: &[&Code] = &[$($name),*];
    };
}

codes! {
    UNREADABLE "M001" "unreadable file" "a file that the manifest consists of or names cannot be read";
    TOO_MUCH "M002" "too much" "the text is larger, deeper or unfolds to more than any manifest needs";
    NOT_TEXT "M003" "not text" "the file is not UTF-8 text, or holds a NUL character";
    SYNTAX "M004" "not YAML" "the text breaks the grammar of YAML";
    DUPLICATE_KEY "M005" "duplicate key" "a map has the same key twice; without this error one of them would be lost";
    UNSUPPORTED_YAML "M006" "unsupported YAML" "a part of YAML that a manifest does not use: own tags, maps as keys, several documents, an alias inside its own anchor";
    UNKNOWN_FIELD "M007" "unknown field" "the field does not exist at this place";
    WRONG_TYPE "M008" "wrong type" "the value is of another type than the field takes";
    BAD_VALUE "M009" "bad value" "the value has the right type but is not one that the field takes";
    MISSING "M010" "missing field" "a field that has to be there is not";
    BAD_NAME "M011" "bad name" "names have letters, digits, `-` and `_`, start with a letter or digit and have at most 63 characters";
    BAD_PORT "M012" "port out of range" "ports are from 1 to 65535";
    ONE_OF "M013" "not exactly one" "exactly one of several fields has to be there, such as `cmd` or `command`";
    UNKNOWN_NEED "M014" "unknown need" "`needs` names a sandbox or service that does not exist";
    SELF_NEED "M015" "needs itself" "a sandbox or service cannot need itself";
    NEED_LEFT_OUT "M016" "need left out" "what is needed is left out because none of its profiles is selected";
    NEED_STOPPED "M017" "need is stopped" "what is needed has `state: stopped`, so what needs it could never start";
    NEED_CONDITION "M018" "condition does not fit" "`completed` is for tasks, `ready` is for services";
    NEED_TWICE "M019" "needed twice" "the same service is listed twice in one `needs`";
    CYCLE "M020" "circle of needs" "services that need each other in a circle can never start";
    PORT_CLASH "M021" "port clash" "two services cannot listen on the same port of the same network";
    IMAGE "M022" "container and image" "`container: true` and `image` belong together";
    NOT_MEANINGFUL "M023" "no meaning here" "the field means nothing for this kind of service";
    UNSET_ENV "M024" "unset environment variable" "`${env.X}` names a variable that is not set and gives no default";
    UNKNOWN_VAR "M025" "unknown variable" "`${var.x}` or `--var x=…` names a variable that `vars` does not declare";
    UNKNOWN_SECRET "M026" "unknown secret" "`${secret.x}` names a secret that `secrets` does not declare";
    SECRET_PLACE "M027" "secret not allowed here" "secrets may be used in `env` values, `files` and platform settings only: everything else is visible to others";
    SECRET_MISSING "M028" "no value for secret" "a secret is used, but its variable is not set or its file cannot be read";
    UNKNOWN_PLATFORM "M029" "unknown platform" "the platform is neither declared under `platforms` nor known by itself";
    UNSUPPORTED_FIELD "M030" "not on this platform" "the platform of the sandbox cannot honour the field";
    ENV_FILE "M031" "bad env file" "a line of an env file is not `KEY=VALUE`";
    BAD_PATH "M032" "bad path" "a path does not lead to what the field needs";
    INTERPOLATION "M033" "left as it is" "the text looks like an interpolation but is none";
    UNKNOWN_PROFILE "M034" "unknown profile" "a selected profile is named nowhere in the manifest";
    UNKNOWN_REFERENCE "M035" "unknown reference" "`${services.A/B.port}`, `${services.A/B.url}` or `${sandboxes.A.url}` names something that is not there, that never has a URL, or that is known too late";
}

/// The entry of one code.
pub fn explain(id: &str) -> Option<&'static Code> {
    CODES.iter().copied().find(|code| code.id == id)
}

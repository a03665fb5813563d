//! What every command needs: the surroundings, read once, and the manifest and platforms made of them.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::error::{Error, Result};
use super::{ColorWhen, Global};
use crate::apply::Journal;
use crate::manifest::{self, Loaded, PlatformConfig};
use crate::model::{Desired, Hindrance, Observed, Scope, Secrets};
use crate::platforms::cloud::http::Connections;
use crate::platforms::cloud::settings::Settings;
use crate::platforms::{self, Opening, Platforms, local};
use crate::supervisor::{EngineError, EngineSettings, probe_engine};

const MANIFEST_NAMES: [&str; 2] = ["gabion.yaml", "gabion.yml"];

/// Widest text we set, in columns, where nothing says how wide the terminal is.
const DEFAULT_WIDTH: usize = 80;

/// After how long a silent command says what it is doing.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);

/// The surroundings of this process and the global options.
pub struct Context {
    global: Global,
    connections: Connections,
    /// Whether stdout gets colour.
    pub color_stdout: bool,
    /// Whether stderr gets colour.
    pub color_stderr: bool,
}

impl Context {
    /// Reads the surroundings.
    pub fn new(global: Global) -> Self {
        let color = |terminal: bool| match global.color {
            ColorWhen::Always => true,
            ColorWhen::Never => false,
            ColorWhen::Auto => {
                let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
                terminal && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
            }
        };
        let color_stdout = color(std::io::stdout().is_terminal());
        let color_stderr = color(std::io::stderr().is_terminal());
        let level = match global.verbose {
            0 => tracing::Level::ERROR,
            1 => tracing::Level::INFO,
            2 => tracing::Level::DEBUG,
            _ => tracing::Level::TRACE,
        };
        tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .with_ansi(color_stderr)
            .with_max_level(level)
            .init();
        Self {
            global,
            connections: Connections::default(),
            color_stdout,
            color_stderr,
        }
    }

    /// Without colour and without a log, for completion.
    pub fn quiet(global: Global) -> Self {
        Self {
            global,
            connections: Connections::default(),
            color_stdout: false,
            color_stderr: false,
        }
    }

    /// Runs `command` on a runtime of its own.
    pub fn block_on<T>(&self, command: impl Future<Output = Result<T>>) -> Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let result = runtime.block_on(command);
        runtime.shutdown_background();
        result
    }

    /// Shows `error` and returns its exit code.
    pub fn report(&self, error: &Error) -> ExitCode {
        if !matches!(error, Error::OutputClosed | Error::Manifest) {
            let red = anstyle::AnsiColor::Red.on_default().bold();
            let bold = anstyle::Style::new().bold();
            say(format_args!(
                "{}: {error}",
                paint(self.color_stderr, red, "error")
            ));
            if let Some(hint) = error.hint() {
                say(format_args!(
                    "{}: {hint}",
                    paint(self.color_stderr, bold, "hint")
                ));
            }
        }
        ExitCode::from(error.code())
    }

    /// Where local state is kept: `GABION_HOME`, or the XDG state directory. One that others can
    /// write to is refused: they could put their own programs into it.
    pub fn home(&self) -> Result<PathBuf> {
        use std::os::unix::fs::MetadataExt;
        let home = Self::named_home()?;
        if let Ok(found) = std::fs::metadata(&home) {
            let own = rustix::process::geteuid().as_raw();
            if found.mode() & 0o002 != 0 || found.uid() != own {
                return Err(Error::Failed {
                    message: format!("{} can be written by others", home.display()),
                    hint: Some("chmod o-w it, or set GABION_HOME to a folder of your own".into()),
                });
            }
        }
        Ok(home)
    }

    fn named_home() -> Result<PathBuf> {
        if let Some(home) = std::env::var_os("GABION_HOME").filter(|home| !home.is_empty()) {
            return Ok(std::path::absolute(home)?);
        }
        use etcetera::BaseStrategy;
        let strategy = etcetera::choose_base_strategy()
            .map_err(|error| Error::failed(format!("cannot tell where to keep state: {error}")))?;
        let state = strategy.state_dir().unwrap_or_else(|| strategy.data_dir());
        Ok(state.join("gabion"))
    }

    /// The manifest files: those named, or the nearest one upwards.
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        if !self.global.files.is_empty() {
            return Ok(self.global.files.clone());
        }
        let here = std::env::current_dir()?;
        let found = here.ancestors().enumerate().find_map(|(up, folder)| {
            let name = MANIFEST_NAMES
                .iter()
                .find(|name| folder.join(name).is_file())?;
            // Short where it can be: messages name this path on every line.
            Some(if up == 0 {
                PathBuf::from(name)
            } else {
                folder.join(name)
            })
        });
        found.map(|file| vec![file]).ok_or_else(|| Error::Usage {
            message: "there is no gabion.yaml here or in any folder above".to_owned(),
            hint: Some("gabion init writes one; -f FILE names one".to_owned()),
        })
    }

    /// The manifest with every problem found in it.
    pub fn load(&self) -> Result<Loaded> {
        Ok(self.load_files(self.files()?))
    }

    /// As [`Context::load`], from these files.
    pub fn load_files(&self, files: Vec<PathBuf>) -> Loaded {
        self.load_with(files, Vec::new())
    }

    fn load_with(&self, files: Vec<PathBuf>, hindrances: Vec<Hindrance>) -> Loaded {
        let env: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        manifest::load(&manifest::Request {
            files,
            env,
            vars: self.global.vars.iter().cloned().collect(),
            profiles: self.global.profiles.iter().cloned().collect(),
            platforms: platforms::capabilities(),
            hindrances,
        })
    }

    /// The manifest, if it is valid; its problems are shown on stderr.
    pub fn load_valid(&self) -> Result<(Loaded, Desired)> {
        self.shown_if_valid(self.load()?)
    }

    /// As [`Context::load_valid`], if this machine can do what is wanted.
    pub fn load_plannable(&self) -> Result<(Loaded, Desired)> {
        let loaded = self.load()?;
        let hindrances = loaded.desired.as_ref().map(hindrances);
        match hindrances.transpose()?.filter(|found| !found.is_empty()) {
            // Once more, because only the manifest knows where the fields are written.
            Some(found) => self.shown_if_valid(self.load_with(self.files()?, found)),
            None => self.shown_if_valid(loaded),
        }
    }

    fn shown_if_valid(&self, mut loaded: Loaded) -> Result<(Loaded, Desired)> {
        if !loaded.report.diagnostics.is_empty() {
            say_raw(format_args!(
                "{}",
                loaded
                    .report
                    .render_text(self.color_stderr, self.width_stderr())
            ));
        }
        match loaded.desired.take() {
            Some(desired) => Ok((loaded, desired)),
            None => Err(Error::Manifest),
        }
    }

    /// The stack's name, even if the manifest has problems; what it wants, if it has none.
    pub fn load_stack(&self) -> Result<(Loaded, Desired)> {
        let mut loaded = self.load()?;
        if let Some(desired) = loaded.desired.take() {
            return Ok((loaded, desired));
        }
        match loaded.stack.clone() {
            Some(stack) => {
                say(format_args!(
                    "note: the manifest is not valid (see gabion validate); showing what is there"
                ));
                Ok((loaded, Desired::empty(stack)))
            }
            None => {
                say_raw(format_args!(
                    "{}",
                    loaded
                        .report
                        .render_text(self.color_stderr, self.width_stderr())
                ));
                Err(Error::Manifest)
            }
        }
    }

    /// The platforms that there is access to: those of the manifest if there is one, and those whose
    /// token is in the environment. It is an error if `asked` is not among them.
    pub fn all_platforms(&self, asked: Option<&str>) -> Result<Platforms> {
        let (configs, secrets) = self.all_configs(asked)?;
        self.open_platforms(&configs, &secrets, "")
    }

    /// The entries of those platforms, by name, and the values of the secrets in them.
    pub fn all_configs(
        &self,
        asked: Option<&str>,
    ) -> Result<(BTreeMap<String, PlatformConfig>, Secrets)> {
        let loaded = match self.files() {
            Ok(files) => Some(self.load_files(files)),
            // Nothing is asked of a manifest here.
            Err(_) if self.global.files.is_empty() => None,
            Err(error) => return Err(error),
        };
        let none = (BTreeMap::new(), Secrets::default());
        let (mut configs, secrets) = match loaded {
            Some(loaded) => (loaded.platforms, loaded.secrets),
            None => none,
        };
        for kind in platforms::capabilities() {
            if !configs.values().any(|config| config.kind == kind.kind) {
                configs.insert(kind.kind.to_owned(), PlatformConfig::of_kind(kind.kind));
            }
        }
        for (name, config) in &mut configs {
            config.used = asked.is_some_and(|asked| asked == name || asked == config.kind);
        }
        if let Some(asked) = asked
            && !configs.values().any(|config| config.used)
        {
            return Err(Error::Usage {
                message: format!("there is no platform `{asked}`"),
                hint: Some("gabion platforms lists them".to_owned()),
            });
        }
        Ok((configs, secrets))
    }

    /// The platforms that the manifest names, opened for its stack.
    pub fn platforms(&self, loaded: &Loaded, stack: &str) -> Result<Platforms> {
        self.open_platforms(&loaded.platforms, &loaded.secrets, stack)
    }

    fn open_platforms(
        &self,
        configs: &BTreeMap<String, PlatformConfig>,
        secrets: &Secrets,
        stack: &str,
    ) -> Result<Platforms> {
        let home = self.home()?;
        let program = std::env::current_exe()?;
        let var = |name: &str| std::env::var(name).ok();
        // What is there on this machine can be seen without an entry.
        let local = PlatformConfig::local();
        let mut configs = configs.iter().collect::<BTreeMap<_, _>>();
        let local_name = local.kind.clone();
        configs.entry(&local_name).or_insert(&local);
        let mut opened = Platforms::default();
        for (name, config) in configs {
            let settings = Settings {
                name,
                config,
                secrets,
                var: &var,
                connections: &self.connections,
            };
            let opening = Opening {
                settings,
                stack,
                home: &home,
                program: &program,
            };
            match platforms::open(&opening)? {
                Some(platform) => opened.add(name.as_str(), platform),
                None => tracing::info!("platform `{name}` is not used, and has no token"),
            }
        }
        Ok(opened)
    }

    /// Reads all platforms; says so if that takes long.
    pub async fn observe(&self, platforms: &mut Platforms, desired: &Desired) -> Result<Observed> {
        let mut read = std::pin::pin!(platforms.observe(desired));
        tokio::select! {
            observed = &mut read => return Ok(observed?),
            () = tokio::time::sleep(PATIENCE) => {}
        }
        say(format_args!("Still reading what is there …"));
        Ok(read.await?)
    }

    /// The journal of a stack.
    pub fn journal(&self, stack: &str) -> Result<Journal> {
        let folder = self.home()?.join("history");
        Ok(Journal::new(folder.join(format!("{stack}.jsonl"))))
    }

    /// The lock file of a stack.
    pub fn lock_file(&self, stack: &str) -> Result<PathBuf> {
        Ok(self.private_dir("locks")?.join(format!("{stack}.lock")))
    }

    fn private_dir(&self, name: &str) -> Result<PathBuf> {
        use std::os::unix::fs::DirBuilderExt;
        let path = self.home()?.join(name);
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path);
        made.map_err(|error| Error::failed(format!("cannot make {}: {error}", path.display())))?;
        Ok(path)
    }

    /// Removes the folders of ours that are empty, after a destroy.
    pub fn tidy_home(&self, stack: &str) -> Result<()> {
        let home = self.home()?;
        // Each fails while something of another stack is in it, as it should.
        let _ = std::fs::remove_file(home.join("history").join(format!("{stack}.jsonl")));
        for name in ["history", "locks"] {
            let _ = std::fs::remove_dir(home.join(name));
        }
        Ok(())
    }

    /// How a plan is set on stdout.
    pub fn plan_style(&self) -> crate::plan::render::Style {
        crate::plan::render::Style {
            color: self.color_stdout,
            width: self.width_stdout(),
        }
    }

    /// The width of stdout, in columns.
    pub fn width_stdout(&self) -> usize {
        width(std::io::stdout())
    }

    /// The width of stderr, in columns.
    pub fn width_stderr(&self) -> usize {
        width(std::io::stderr())
    }
}

/// What this machine cannot do of what is wanted.
fn hindrances(desired: &Desired) -> Result<Vec<Hindrance>> {
    if !desired.services().any(|(_, spec)| spec.container) {
        return Ok(Vec::new());
    }
    let settings = EngineSettings::from_vars(|name| std::env::var(name).ok());
    // On a thread of its own: whoever loads a manifest may be on a runtime already.
    let probed = std::thread::scope(|scope| {
        let probe = || -> std::io::Result<_> {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            Ok(runtime.block_on(probe_engine(&settings)))
        };
        let ended = scope.spawn(probe).join();
        ended.unwrap_or_else(|_| Err(std::io::Error::other("the engine was not looked for")))
    });
    let why = match probed? {
        Ok(()) => return Ok(Vec::new()),
        Err(error) => error,
    };
    Ok(vec![Hindrance {
        kind: local::capabilities().kind,
        scope: Scope::Service,
        field: "container",
        problem: "needs a container engine".to_owned(),
        why: why.to_string(),
        help: EngineError::HINT.to_owned(),
    }])
}

fn width(stream: impl std::os::fd::AsFd) -> usize {
    match rustix::termios::tcgetwinsize(stream) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
        _ => DEFAULT_WIDTH,
    }
}

/// `text` in `style`, if colour is wanted.
pub fn paint(color: bool, style: anstyle::Style, text: &str) -> String {
    if color {
        format!("{style}{text}{style:#}")
    } else {
        text.to_owned()
    }
}

/// Writes a result to stdout.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// Writes a value to stdout as JSON.
pub fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value);
    let text = text.map_err(|error| Error::failed(error.to_string()))?;
    print(&format!("{text}\n"))
}

/// Rows under a heading, in columns.
pub fn table<const N: usize>(
    color: bool,
    heading: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(heading);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut out = String::new();
    for (index, line) in table.to_string().lines().enumerate() {
        let line = line.trim_end();
        match index {
            0 => out.push_str(&paint(color, anstyle::Style::new().bold(), line)),
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

/// A path as people would write it here: relative where that is shorter.
pub fn short(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here)
        .unwrap_or(path)
        .display()
        .to_string()
}

/// `1 action`, `3 actions`.
pub fn count(number: usize, noun: &str) -> String {
    let ending = match (number, noun.ends_with('x')) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{number} {noun}{ending}")
}

/// Writes a line of the story to stderr. Somebody who closed it wants to hear nothing.
pub fn say(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// As [`say`], without a line end.
pub fn say_raw(text: std::fmt::Arguments<'_>) {
    let mut stderr = std::io::stderr().lock();
    let _ = write!(stderr, "{text}").and_then(|()| stderr.flush());
}

//! The storm itself: who is killed when, and what is looked at between and after.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fastrand::Rng;
use gabion::keeper::launch;
use gabion::model::{
    Health, HumanDuration, IsolationWish, Probe, Program, RestartPolicy, SandboxSpec, Secrets,
    ServiceName, ServiceSpec,
};
use gabion::supervisor::{Client, Until};
use rustix::process::{Pid, Signal};

use super::instance::{CALM, EPOCH, KINDS};
use super::{check, machine};

const SERVICES: u64 = 100;
const CLIENTS: usize = 3;
/// What anything may take on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(120);

/// One sandbox and what is known of it.
pub struct Storm {
    pub dir: PathBuf,
    pub mark: String,
    pub keeper: u32,
    pub epoch: u64,
    pub clients: Vec<Child>,
    random: Rng,
    killed: [u32; 3],
}

pub fn name_of(index: u64) -> String {
    format!("s{index:03}")
}

pub fn spec_of(index: u64, variant: &str) -> ServiceSpec {
    let kind = KINDS[index as usize % KINDS.len()];
    let exe = std::env::current_exe().expect("this program");
    let args = ["instance", kind, &name_of(index), &index.to_string()];
    let mut spec = ServiceSpec::new(Program::Exec {
        cmd: exe.display().to_string(),
        args: args.map(str::to_owned).to_vec(),
    });
    spec.restart.policy = RestartPolicy::Always;
    spec.restart.backoff = HumanDuration::from_millis(20);
    spec.restart.max_backoff = HumanDuration::from_millis(300);
    spec.stop.grace = HumanDuration::from_millis(300);
    spec.env.insert("VARIANT".into(), variant.to_owned());
    if let Ok(mark) = std::env::var(machine::MARK) {
        spec.env.insert(machine::MARK.into(), mark);
    }
    if index % 7 == 3 {
        let contains = "T ".to_owned();
        spec.health = Some(Health::new(Probe::Log { contains }));
    }
    spec
}

pub fn run() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed: u64 = number("GABION_TORTURE_SEED").unwrap_or_else(|| fastrand::u64(..));
    let kills = number("GABION_TORTURE_KILLS").unwrap_or(60);
    println!("\ntorture: seed {seed}, {kills} kills");
    let mark = format!("{}-{seed}", std::process::id());
    // SAFETY: there is one thread only. It is in the environment of all that is started from here.
    unsafe { std::env::set_var(machine::MARK, &mark) };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let temp = tempfile::tempdir().expect("a folder");
        let begun = Instant::now();
        let mut storm = Storm::begin(temp.path(), mark, Rng::with_seed(seed)).await;
        let before = storm.descriptors();
        println!("torture: all run after {:?}", begun.elapsed());
        let begun = Instant::now();
        storm.rage(kills).await;
        println!(
            "torture: killed {:?} in {:?}",
            storm.killed,
            begun.elapsed()
        );
        check::after(&mut storm, before).await;
        println!("torture: ok after {:?} (seed {seed})\n", begun.elapsed());
    });
}

impl Storm {
    async fn begin(dir: &Path, mark: String, random: Rng) -> Self {
        let wish = match std::env::var("GABION_TORTURE_ISOLATION").as_deref() {
            Ok("none") => IsolationWish::None,
            _ => SandboxSpec::default().isolation,
        };
        let dir = dir.join("torture");
        std::fs::create_dir_all(dir.join("workspace")).expect("a folder");
        // This program is each service too: it has to be seen even where a sandbox has its own `/tmp`.
        let exe = std::env::current_exe().expect("this program");
        let folder = exe.parent().expect("its folder").to_owned();
        let spec = SandboxSpec {
            isolation: wish,
            writable: vec![folder],
            ..SandboxSpec::default()
        };
        let text = serde_json::json!({ "spec": spec }).to_string();
        std::fs::write(dir.join("sandbox.json"), text).expect("a file");
        let mut storm = Self {
            dir,
            mark,
            keeper: 0,
            epoch: 0,
            clients: Vec::new(),
            random,
            killed: [0; 3],
        };
        // Until the storm begins, everybody behaves.
        std::fs::write(storm.workspace().join(CALM), "").expect("a file");
        storm.launch().await;
        let client = storm.client().await;
        for index in 0..SERVICES {
            let spec = spec_of(index, "0");
            client
                .put(&named(index), &spec, &Secrets::default())
                .await
                .expect("a definition");
        }
        storm.all_run().await;
        storm
    }

    pub fn workspace(&self) -> PathBuf {
        self.dir.join("workspace")
    }

    /// Starts what is not running, and waits until all of it is.
    pub async fn all_run(&self) {
        let client = self.client().await;
        let (client, none) = (&client, &Secrets::default());
        let starts = (0..SERVICES).map(|index| async move {
            let started = client.start(&named(index), none, Until::Settled).await;
            started.unwrap_or_else(|error| panic!("{}: {error}", name_of(index)));
        });
        let all = futures_util::future::join_all(starts);
        tokio::time::timeout(LIMIT, all).await.expect("too slow");
    }

    /// A new keeper, in the place of one that is gone.
    async fn launch(&mut self) {
        self.epoch += 1;
        std::fs::write(self.workspace().join(EPOCH), self.epoch.to_string()).expect("a file");
        launch(Path::new(env!("CARGO_BIN_EXE_gabion")), &self.dir)
            .await
            .expect("a keeper");
        let health = self.client().await.health().await.expect("health");
        self.keeper = health.keeper_pid.expect("a keeper");
    }

    /// One that is answered: its supervisor may have been killed a moment ago.
    pub async fn client(&self) -> Client {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Ok(Some(client)) = Client::open(&self.dir)
                && client.health().await.is_ok()
            {
                return client;
            }
            assert!(Instant::now() < deadline, "no supervisor answers");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Keeper, supervisor, init: how many descriptors each has.
    pub fn descriptors(&self) -> [usize; 3] {
        let supervisor = machine::supervisor_of(self.keeper);
        let all = [Some(self.keeper), supervisor, machine::init_of(self.keeper)];
        all.map(|pid| pid.map_or(0, machine::descriptors))
    }

    async fn rage(&mut self, kills: u64) {
        std::fs::remove_file(self.workspace().join(CALM)).expect("a removed file");
        for _ in 0..CLIENTS {
            self.add_client();
        }
        for count in 1..=kills {
            let pause = match self.random.u8(0..4) {
                0 => self.random.u64(0..20),
                _ => self.random.u64(20..400),
            };
            tokio::time::sleep(Duration::from_millis(pause)).await;
            match self.random.u8(0..100) {
                0..5 => self.kill_keeper().await,
                5..15 => self.kill_client(),
                _ => self.kill_supervisor().await,
            }
            check::alone(self);
            if count % 20 == 0 {
                check::nobody_outside(self);
            }
        }
        for mut client in std::mem::take(&mut self.clients) {
            let _ = client.kill();
            let _ = client.wait();
        }
        std::fs::write(self.workspace().join(CALM), "").expect("a file");
    }

    fn add_client(&mut self) {
        let exe = std::env::current_exe().expect("this program");
        let seed = self.random.u64(..).to_string();
        let client = Command::new(exe)
            .args([
                "client",
                &self.dir.display().to_string(),
                &SERVICES.to_string(),
                &seed,
            ])
            .stdin(Stdio::null())
            .spawn();
        self.clients.push(client.expect("a client"));
    }

    fn kill_client(&mut self) {
        self.killed[2] += 1;
        let index = self.random.usize(0..self.clients.len());
        let mut client = self.clients.swap_remove(index);
        let _ = client.kill();
        let _ = client.wait();
        self.add_client();
    }

    async fn kill_supervisor(&mut self) {
        if self.random.bool() {
            // One that serves; otherwise one that is at any point of its beginning.
            drop(self.client().await);
        }
        let deadline = Instant::now() + LIMIT;
        let supervisor = loop {
            if let Some(supervisor) = machine::supervisor_of(self.keeper) {
                break supervisor;
            }
            assert!(Instant::now() < deadline, "no supervisor begins");
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        self.killed[1] += 1;
        kill(supervisor);
    }

    async fn kill_keeper(&mut self) {
        self.killed[0] += 1;
        kill(self.keeper);
        gone(self.keeper).await;
        self.launch().await;
    }

    /// Whether a process is one of those that serve the test.
    pub fn is_ours(&self, pid: u32) -> bool {
        pid == std::process::id() || self.clients.iter().any(|client| client.id() == pid)
    }
}

impl Drop for Storm {
    /// Also of a test that has failed: nothing goes on.
    fn drop(&mut self) {
        for client in &mut self.clients {
            let _ = client.kill();
            let _ = client.wait();
        }
        let others = machine::marked(&self.mark).into_iter();
        others
            .filter(|pid| *pid != std::process::id())
            .for_each(kill);
    }
}

fn named(index: u64) -> ServiceName {
    ServiceName::new(name_of(index)).expect("a name")
}

pub fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

/// Waits for the end of a process.
pub async fn gone(pid: u32) {
    let deadline = Instant::now() + LIMIT;
    while machine::stat(pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X')) {
        assert!(Instant::now() < deadline, "{pid} does not end");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

//! The pooler under test: the real program, as its user would start it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio_postgres::{Client, NoTls};

use super::ending::{Ends, ended_within};
use super::raw::Raw;
use super::{PASSWORD, USER, cluster, eventually, free_port, unprivileged};

pub(crate) struct Pooler {
    pub(crate) port: u16,
    pub(crate) dir: PathBuf,
    child: Child,
}

/// The program, where a user without privileges can start it.
pub(crate) fn exe() -> &'static PathBuf {
    static EXE: OnceLock<PathBuf> = OnceLock::new();
    EXE.get_or_init(|| {
        let copy = cluster().dir.join("pgweir");
        // Not by ourselves: a process that another thread starts meanwhile would have it open for writing, which keeps
        // everybody from running it.
        assert!(
            Command::new("cp")
                .arg(env!("CARGO_BIN_EXE_pgweir"))
                .arg(&copy)
                .spawn()
                .unwrap()
                .ended()
                .success()
        );
        copy
    })
}

impl Pooler {
    /// A pooler in transaction mode with the database `app` on the primary; `settings` are lines of `[pgbouncer]` that
    /// come last, and may be followed by other sections.
    pub(crate) fn start(settings: &str) -> Self {
        let databases = format!("app = host=127.0.0.1 port={}\n", cluster().primary);
        Self::with_databases(&databases, settings)
    }

    pub(crate) fn with_databases(databases: &str, settings: &str) -> Self {
        let port = free_port();
        let dir = Self::new_dir();
        let ini = Self::ini(&dir, port, databases, settings);
        std::fs::write(dir.join("pgweir.ini"), ini).unwrap();
        Self::launch(port, dir)
    }

    /// The configuration that [`Pooler::start`] makes; by `PGWEIR_TEST_EPOLL` without io_uring.
    pub(crate) fn ini(dir: &Path, port: u16, databases: &str, settings: &str) -> String {
        let dir = dir.display();
        let epoll = if std::env::var_os("PGWEIR_TEST_EPOLL").is_some() { "io_uring = 0\n" } else { "" };
        format!(
            "[databases]\n{databases}[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir = {dir}\n\
             auth_type = scram-sha-256\nauth_file = {dir}/userlist.txt\nadmin_users = {USER}\nstats_users = other\n\
             pool_mode = transaction\nhttp_port = 0\nlogfile = {dir}/log\n{epoll}{settings}\n"
        )
    }

    /// A folder that the pooler can write to, with a userlist in it.
    pub(crate) fn new_dir() -> PathBuf {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let dir = cluster().dir.join(format!("pooler-{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        assert!(unprivileged("mkdir").arg(&dir).spawn().unwrap().ended().success());
        let users = format!(
            "\"{USER}\" \"{PASSWORD}\"\n\"other\" \"other\"\n\"trusted\" \"\"\n\"md5user\" \"md5 secret\"\n\"plainuser\" \"plain secret\"\n"
        );
        std::fs::write(dir.join("userlist.txt"), users).unwrap();
        dir
    }

    /// A pooler whose folder is filled first: `prepare` gives lines of `[databases]` and of `[pgbouncer]`.
    pub(crate) fn prepared(prepare: impl FnOnce(&Path) -> (String, String)) -> Self {
        let (port, dir) = (free_port(), Self::new_dir());
        let (databases, settings) = prepare(&dir);
        std::fs::write(dir.join("pgweir.ini"), Self::ini(&dir, port, &databases, &settings)).unwrap();
        Self::launch(port, dir)
    }

    /// A pooler whose folder is filled first, as in [`Pooler::prepared`], and for which `name` in it is what the system has
    /// at `path`. `None` where the tests have no right to that.
    pub(crate) fn mounting(
        name: &str,
        path: &str,
        prepare: impl FnOnce(&Path) -> (String, String),
    ) -> Option<Self> {
        if !Command::new("unshare")
            .args(["-m", "true"])
            .spawn()
            .is_ok_and(|mut child| child.ended().success())
        {
            return None;
        }
        let (port, dir) = (free_port(), Self::new_dir());
        let (databases, settings) = prepare(&dir);
        std::fs::write(dir.join("pgweir.ini"), Self::ini(&dir, port, &databases, &settings)).unwrap();
        let program = unprivileged(exe().to_str().unwrap());
        let mut command = Command::new("unshare");
        command
            .args(["-m", "sh", "-c", "mount --bind \"$0\" \"$1\" && shift && exec \"$@\"", name, path])
            .arg(program.get_program())
            .args(program.get_args());
        let child = Self::spawn(command, &dir, &["-q", "pgweir.ini"], &[]);
        Some(Self { port, dir, child }.listening())
    }

    pub(crate) fn launch(port: u16, dir: PathBuf) -> Self {
        Self::launch_with(port, dir, &[])
    }

    /// The same with variables in the environment.
    pub(crate) fn launch_with(port: u16, dir: PathBuf, environment: &[(&str, &str)]) -> Self {
        let program = unprivileged(exe().to_str().unwrap());
        let child = Self::spawn(program, &dir, &["-q", "pgweir.ini"], environment);
        Self { port, dir, child }.listening()
    }

    /// Once it listens.
    fn listening(mut self) -> Self {
        let start = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(self.child.try_wait().unwrap().is_none(), "did not start: {}", self.stderr());
            assert!(start.elapsed() < Duration::from_secs(10), "does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        self
    }

    fn spawn(mut program: Command, dir: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Child {
        let stderr = std::fs::File::options().append(true).create(true).open(dir.join("stderr")).unwrap();
        program
            .args(arguments)
            .envs(environment.iter().copied())
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap()
    }

    /// A process that takes over from this one (`-R`).
    #[track_caller]
    pub(crate) fn successor(&self) -> Self {
        let program = unprivileged(exe().to_str().unwrap());
        let child = Self::spawn(program, &self.dir, &["-q", "-R", "pgweir.ini"], &[]);
        let mut pooler = Self { port: self.port, dir: self.dir.clone(), child };
        let up = format!("[{}] LOG process up", pooler.pid());
        eventually("the successor is up", || {
            assert!(pooler.is_running(), "{}{}", pooler.stderr(), pooler.log());
            pooler.log().contains(&up)
        });
        pooler
    }

    /// Replaces the configuration file; it takes effect with RELOAD.
    pub(crate) fn rewrite(&self, databases: &str, settings: &str) {
        std::fs::write(self.dir.join("pgweir.ini"), Self::ini(&self.dir, self.port, databases, settings))
            .unwrap();
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    pub(crate) fn stderr(&self) -> String {
        std::fs::read_to_string(self.dir.join("stderr")).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Waits for the process to end by itself.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        ended_within(&mut self.child, Duration::from_secs(10)).expect("does not end")
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// A driver's connection to a database, as the user of all tests.
    pub(crate) async fn connect(&self, database: &str) -> Client {
        self.try_connect(&format!("user={USER} password='{PASSWORD}' dbname={database}")).await.unwrap()
    }

    pub(crate) async fn try_connect(&self, parameters: &str) -> Result<Client, tokio_postgres::Error> {
        let parameters = format!("host=127.0.0.1 port={} {parameters}", self.port);
        let (client, connection) = tokio_postgres::connect(&parameters, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// A raw connection, logged in.
    pub(crate) async fn raw(&self) -> Raw {
        Raw::log_in(self.port, "app").await
    }

    /// Runs a console command; rows as text.
    pub(crate) async fn console(&self, command: &str) -> Vec<Vec<String>> {
        let mut raw = Raw::log_in(self.port, "pgbouncer").await;
        raw.rows(command).await
    }

    /// One figure of a row of SHOW that begins with `key`.
    pub(crate) async fn figure(&self, show: &str, key: &str, column: &str) -> i64 {
        let mut raw = Raw::log_in(self.port, "pgbouncer").await;
        let (columns, rows) = raw.table(show).await;
        let at = columns
            .iter()
            .position(|(name, _)| name == column)
            .unwrap_or_else(|| panic!("no {column} in {columns:?}"));
        rows.iter().find(|row| row[0] == key).map_or(0, |row| row[at].parse().unwrap())
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        if self.is_running() {
            self.signal(Signal::SIGQUIT);
            let _ = ended_within(&mut self.child, Duration::from_secs(10));
        }
        assert!(!self.stderr().contains("panicked") && !self.log().contains("panicked"), "{}", self.stderr());
    }
}

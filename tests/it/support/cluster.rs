//! A PostgreSQL primary and its streaming replica, started once per run.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::{Ends, PASSWORD, USER, free_port, unprivileged, unprivileged_user};

pub(crate) struct Cluster {
    pub(crate) dir: PathBuf,
    pub(crate) primary: u16,
    pub(crate) replica: u16,
    bin: PathBuf,
    /// Stops everything and removes the directory when this process ends, however it ends: its standard input closes.
    _guardian: Child,
}

/// The cluster of this run.
pub(crate) fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(Cluster::start)
}

const GUARDIAN: &str = r#"cat >/dev/null
for pidfile in "$0"/*/postmaster.pid; do
    [ -f "$pidfile" ] && kill -QUIT "$(head -n 1 "$pidfile")" 2>/dev/null
done
sleep 0.5
rm -rf "$0""#;

impl Cluster {
    fn start() -> Self {
        let dir = std::env::temp_dir().join(format!("pgweir-test-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        if nix::unistd::geteuid().is_root() {
            let user = unprivileged_user();
            std::os::unix::fs::chown(&dir, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        }
        let guardian = Command::new("setsid")
            .args(["sh", "-c", GUARDIAN, dir.to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (primary, replica) = (free_port(), free_port());
        let cluster = Self { dir, primary, replica, bin: programs(), _guardian: guardian };
        cluster.start_primary();
        cluster.start_replica();
        cluster
    }

    fn start_primary(&self) {
        self.init("primary");
        self.start_instance(
            "primary",
            self.primary,
            "hot_standby_feedback = on\nmax_prepared_transactions = 5\nwal_level = logical\n",
            "host all trusted 127.0.0.1/32 trust\nhost all md5user 127.0.0.1/32 md5\nhost all plainuser 127.0.0.1/32 \
             password\nhost all all 127.0.0.1/32 scram-sha-256\nhost replication all 127.0.0.1/32 scram-sha-256\n\
             local all all trust\n",
        );
        self.admin(self.primary, &format!("CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'"));
        self.admin(self.primary, "CREATE ROLE other LOGIN PASSWORD 'other'");
        self.admin(self.primary, "CREATE ROLE trusted LOGIN");
        self.admin(
            self.primary,
            "SET password_encryption = md5; CREATE ROLE md5user LOGIN PASSWORD 'md5 secret'",
        );
        self.admin(self.primary, "CREATE ROLE plainuser LOGIN PASSWORD 'plain secret'");
        self.admin(self.primary, "CREATE ROLE replicator LOGIN REPLICATION PASSWORD 'replicator'");
        self.admin(self.primary, &format!("CREATE DATABASE app OWNER {USER}"));
    }

    /// Starts another PostgreSQL with these lines of configuration and these rules; gives its port.
    pub(crate) fn start_another(&self, name: &str, conf: &str, hba: &str) -> u16 {
        let port = free_port();
        self.init(name);
        self.start_instance(name, port, conf, hba);
        port
    }

    pub(super) fn init(&self, name: &str) {
        self.write("password", "postgres\n");
        let password = format!("--pwfile={}", self.dir.join("password").display());
        let arguments = [
            "-U",
            "postgres",
            "-A",
            "scram-sha-256",
            &password,
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "-D",
        ];
        self.run("initdb", &[&arguments[..], &[self.dir.join(name).to_str().unwrap()]].concat());
    }

    pub(super) fn start_instance(&self, name: &str, port: u16, conf: &str, hba: &str) {
        self.write(
            &format!("{name}/postgresql.auto.conf"),
            &format!(
                "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nmax_connections = 200\n\
                 fsync = off\nfull_page_writes = off\n{conf}",
                self.dir.display()
            ),
        );
        self.write(&format!("{name}/pg_hba.conf"), hba);
        let data = self.dir.join(name);
        self.run("pg_ctl", &["-D", data.to_str().unwrap(), "-w", "-s", "-l", &self.log(name), "start"]);
    }

    fn start_replica(&self) {
        let data = self.dir.join("replica");
        let source = format!("host=127.0.0.1 port={} user=replicator password=replicator", self.primary);
        let data = data.to_str().unwrap();
        self.run(
            "pg_basebackup",
            &["-D", data, "-R", "-X", "stream", "-c", "fast", "--no-sync", "-d", &source],
        );
        let conf = std::fs::read_to_string(self.dir.join("replica/postgresql.auto.conf")).unwrap();
        self.write("replica/postgresql.auto.conf", &format!("{conf}port = {}\n", self.replica));
        self.run("pg_ctl", &["-D", data, "-w", "-s", "-l", self.log("replica").as_str(), "start"]);
    }

    /// Runs SQL as the superuser, with psql over the Unix socket, and returns what it prints.
    #[track_caller]
    pub(crate) fn admin(&self, port: u16, sql: &str) -> String {
        self.admin_in("postgres", port, sql)
    }

    #[track_caller]
    pub(crate) fn admin_in(&self, database: &str, port: u16, sql: &str) -> String {
        let output = Command::new(self.bin.join("psql"))
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-c", sql])
            .args(["-h", self.dir.to_str().unwrap(), "-p", &port.to_string()])
            .ended();
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A program of PostgreSQL's.
    pub(crate) fn program(&self, name: &str) -> Command {
        Command::new(self.bin.join(name))
    }

    /// Waits until the replica has replayed all there is.
    pub(crate) fn catch_up(&self) {
        let start = Instant::now();
        let lsn = self.admin(self.primary, "SELECT pg_current_wal_lsn()");
        while self.admin(self.replica, &format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'")) != "t" {
            assert!(start.elapsed() < Duration::from_secs(10), "the replica does not catch up");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(super) fn log(&self, name: &str) -> String {
        self.dir.join(format!("{name}.log")).display().to_string()
    }

    /// Writes a file that belongs to the user PostgreSQL runs as.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let mut child = unprivileged("tee")
            .arg(self.dir.join(name))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.ended().success());
    }

    #[track_caller]
    pub(super) fn run(&self, program: &str, arguments: &[&str]) {
        assert!(self.try_run(program, arguments), "{program} failed, see {}", self.dir.display());
    }

    /// Runs a program of PostgreSQL's as the user it runs as; says whether it succeeded.
    pub(super) fn try_run(&self, program: &str, arguments: &[&str]) -> bool {
        unprivileged(self.bin.join(program).to_str().unwrap())
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::null())
            // A daemon that keeps these open would keep us waiting for their end.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
            .ended()
            .success()
    }
}

/// The folder with PostgreSQL's programs: `PG_BIN`, else the newest of Debian's, else the PATH.
fn programs() -> PathBuf {
    if let Some(bin) = std::env::var_os("PG_BIN") {
        return bin.into();
    }
    let version = |path: &Path| path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse::<u32>().ok());
    let installed =
        std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path());
    match installed.max_by_key(|path| version(path)) {
        Some(newest) => newest.join("bin"),
        None => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let found = std::env::split_paths(&path).find(|folder| folder.join("initdb").exists());
            found.expect("PostgreSQL's programs: install postgresql, or set PG_BIN")
        }
    }
}

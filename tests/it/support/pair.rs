//! A primary and streaming replicas that one test has for itself: to hold back, to stop, to promote.

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::cluster::Cluster;
use super::{PASSWORD, USER, cluster, free_port};

/// Two PostgreSQL servers, or more; which of them is the primary changes.
pub(crate) struct Pair {
    cluster: &'static Cluster,
    names: Vec<String>,
    pub(crate) ports: Vec<u16>,
}

impl Pair {
    /// Starts both, the first one being the primary.
    pub(crate) fn start(name: &str) -> Self {
        let cluster = cluster();
        let names = vec![format!("{name}-0"), format!("{name}-1")];
        let pair = Self { cluster, names, ports: vec![free_port(), free_port()] };
        cluster.init(&pair.names[0]);
        let rules = "local all all trust\nhost replication all 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
        cluster.start_instance(&pair.names[0], pair.ports[0], "wal_log_hints = on\n", rules);
        pair.admin(0, &format!("CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'"));
        pair.admin(0, &format!("CREATE DATABASE app OWNER {USER}"));
        pair.clone_to(1, 0);
        pair
    }

    /// Starts another replica of the first server; it has the next number.
    pub(crate) fn add_replica(&mut self) {
        let number = self.names.len();
        self.names.push(self.names[0].replace("-0", &format!("-{number}")));
        self.ports.push(free_port());
        self.clone_to(number, 0);
    }

    /// Makes one the replica of the other, from nothing.
    fn clone_to(&self, replica: usize, primary: usize) {
        let data = self.data(replica);
        let source = format!("host=127.0.0.1 port={} user=postgres", self.ports[primary]);
        let arguments = ["-D", &data, "-R", "-X", "stream", "-c", "fast", "--no-sync", "-d", &source];
        self.cluster.run("pg_basebackup", &arguments);
        let file = format!("{}/postgresql.auto.conf", self.names[replica]);
        let conf = std::fs::read_to_string(self.cluster.dir.join(&file)).unwrap();
        self.cluster.write(&file, &format!("{conf}port = {}\n", self.ports[replica]));
        self.launch(replica);
    }

    pub(crate) fn admin(&self, which: usize, sql: &str) -> String {
        self.cluster.admin(self.ports[which], sql)
    }

    pub(crate) fn admin_app(&self, which: usize, sql: &str) -> String {
        self.cluster.admin_in("app", self.ports[which], sql)
    }

    /// Changes a setting that a reload puts in force.
    pub(crate) fn set(&self, which: usize, setting: &str) {
        self.admin(which, &format!("ALTER SYSTEM SET {setting}"));
        self.admin(which, "SELECT pg_reload_conf()");
    }

    /// `pg_ctl stop` in this mode.
    pub(crate) fn stop(&self, which: usize, mode: &str) {
        self.cluster.run("pg_ctl", &["-D", &self.data(which), "-w", "-s", "-m", mode, "stop"]);
    }

    /// `kill -9` of all its processes, as if the machine had gone.
    pub(crate) fn kill(&self, which: usize) {
        self.signal(which, Signal::SIGKILL);
    }

    /// All its processes stand still, as if the network had gone, until what is returned is dropped, which kills them.
    pub(crate) fn freeze(&self, which: usize) -> Frozen<'_> {
        self.signal(which, Signal::SIGSTOP);
        Frozen(self, which)
    }

    fn signal(&self, which: usize, signal: Signal) {
        let pidfile =
            std::fs::read_to_string(self.cluster.dir.join(&self.names[which]).join("postmaster.pid"));
        let pid: i32 = pidfile.unwrap().lines().next().unwrap().parse().unwrap();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let children = children.split_whitespace().map(|child| child.parse().unwrap());
        for pid in children.chain([pid]) {
            // It may have ended meanwhile.
            let _ = nix::sys::signal::kill(Pid::from_raw(pid), signal);
        }
    }

    /// `pg_ctl promote`; returns when it takes writes.
    pub(crate) fn promote(&self, which: usize) {
        self.cluster.run("pg_ctl", &["-D", &self.data(which), "-w", "-s", "promote"]);
    }

    /// Starts it as what it was when it was stopped.
    pub(crate) fn launch(&self, which: usize) {
        let log = self.cluster.log(&self.names[which]);
        self.cluster.run("pg_ctl", &["-D", &self.data(which), "-w", "-s", "-l", &log, "start"]);
    }

    /// Starts a server that was stopped as the replica of the other.
    pub(crate) fn follow(&self, which: usize) {
        let name = &self.names[which];
        self.cluster.write(&format!("{name}/standby.signal"), "");
        let file = format!("{name}/postgresql.auto.conf");
        let conf = std::fs::read_to_string(self.cluster.dir.join(&file)).unwrap();
        let source =
            format!("primary_conninfo = 'host=127.0.0.1 port={} user=postgres'\n", self.ports[1 - which]);
        self.cluster.write(&file, &format!("{conf}{source}"));
        self.launch(which);
    }

    /// Waits until the replica has replayed all there is.
    pub(crate) fn catch_up(&self, replica: usize) {
        let lsn = self.admin(1 - replica, "SELECT pg_current_wal_lsn()");
        super::eventually("the replica catches up", || {
            self.admin(replica, &format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'")) == "t"
        });
    }

    /// A line for `[databases]`.
    pub(crate) fn database(&self, settings: &str) -> String {
        format!("app = host=127.0.0.1,127.0.0.1 port={},{} {settings}\n", self.ports[0], self.ports[1])
    }

    fn data(&self, which: usize) -> String {
        self.cluster.dir.join(&self.names[which]).to_str().unwrap().to_owned()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for which in 0..self.names.len() {
            // Those that are down already do not mind.
            let _ =
                self.cluster.try_run("pg_ctl", &["-D", &self.data(which), "-s", "-m", "immediate", "stop"]);
        }
    }
}

/// See [`Pair::freeze`].
pub(crate) struct Frozen<'a>(&'a Pair, usize);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.0.kill(self.1);
    }
}

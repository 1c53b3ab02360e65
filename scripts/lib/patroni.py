"""A throw-away Patroni cluster: one etcd and some members, on free ports of this machine, as an unprivileged user.

synchronous_mode is on, so that a failover loses nothing that was acknowledged; ttl 20 s, loop_wait 2 s; fsync off.
"""
import glob
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

TRUST = ["local all all trust", "host all postgres 127.0.0.1/32 trust", "host replication replicator 127.0.0.1/32 trust"]
HBA = [*TRUST, "host all all 127.0.0.1/32 scram-sha-256"]


class Cluster:
    def __init__(self, folder, patroni, count):
        self.dir, self.patroni, self.processes = folder, patroni, []
        self.bin = pathlib.Path(os.environ.get("PG_BIN") or newest_postgres())
        self.etcd = free_port()
        self.nodes = [Node(self, f"node{number + 1}") for number in range(count)]
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")

    def start(self):
        """Returns the leader."""
        clients, peers = f"http://127.0.0.1:{self.etcd}", f"http://127.0.0.1:{free_port()}"
        names = ["--initial-cluster", f"default={peers}", "--initial-advertise-peer-urls", peers, "--advertise-client-urls", clients]
        self.spawn("etcd", "etcd", "--data-dir", self.dir / "etcd", "--listen-peer-urls", peers, "--listen-client-urls", clients, *names)
        self.set_hooks()
        self.nodes[0].start()
        wait_for("a leader", self.leader, 60)
        for node in self.nodes[1:]:
            node.start()
        return self.settled()

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()
        for pid in filter(None, [node.postmaster() for node in self.nodes]):
            os.kill(pid, signal.SIGQUIT)
            wait_for("the end of PostgreSQL", lambda pid=pid: not is_running(pid), 20)

    def spawn(self, name, *command):
        command = [str(word) for word in command]
        if os.geteuid() == 0:
            command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--", *command]
        with open(self.dir / f"{name}.out", "ab") as output:
            # A session of its own: Ctrl-C is for this script, which stops them one by one.
            process = subprocess.Popen(command, cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
        self.processes.append(process)
        return process

    def set_hooks(self, before_stop="", on_role_change=""):
        """What is in the shell scripts that Patroni runs."""
        for name, text in (("before_stop", before_stop), ("on_role_change", on_role_change)):
            (self.dir / name).write_text(f"#!/bin/sh\n{text}")
            (self.dir / name).chmod(0o755)

    def members(self):
        for node in self.nodes:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{node.rest}/cluster", timeout=5) as answer:
                    return json.load(answer)["members"]
            except OSError:
                pass
        return []

    def leader(self):
        names = [member["name"] for member in self.members() if member["role"] == "leader" and member["state"] == "running"]
        return next((node for node in self.nodes if [node.name] == names), None)

    def settled(self):
        """The leader, as soon as all others follow it and one of them is synchronous."""

        def is_settled():
            members = self.members()
            is_whole = len(members) == len(self.nodes) and len({member.get("timeline") for member in members}) == 1
            is_whole = is_whole and all(member["state"] in ("running", "streaming") for member in members)
            return is_whole and "sync_standby" in [member["role"] for member in members]

        wait_for("a whole cluster", is_settled, 120)
        return wait_for("a leader", self.leader, 10)

    def switch_over(self, leader):
        """Returns when Patroni says that it is done, as `patronictl switchover` does."""
        request = urllib.request.Request(f"http://127.0.0.1:{leader.rest}/switchover", json.dumps({"leader": leader.name}).encode())
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()


class Node:
    def __init__(self, cluster, name):
        self.cluster, self.name, self.data, self.process = cluster, name, cluster.dir / name, None
        self.port, self.rest = free_port(), free_port()

    def start(self):
        config = self.cluster.dir / f"{self.name}.yml"
        # JSON is YAML.
        config.write_text(json.dumps(self.config(), indent=1))
        self.process = self.cluster.spawn(self.name, self.cluster.patroni, config)

    def config(self):
        address, rest, folder = f"127.0.0.1:{self.port}", f"127.0.0.1:{self.rest}", self.cluster.dir
        parameters = {"unix_socket_directories": str(folder), "fsync": "off", "dynamic_shared_memory_type": "mmap", "log_min_messages": "fatal"}
        dcs = {"ttl": 20, "loop_wait": 2, "retry_timeout": 5, "synchronous_mode": True, "postgresql": {"use_pg_rewind": True}}
        return {
            "scope": "try",
            "name": self.name,
            "restapi": {"listen": rest, "connect_address": rest},
            "etcd3": {"host": f"127.0.0.1:{self.cluster.etcd}"},
            "watchdog": {"mode": "off"},
            "bootstrap": {"dcs": dcs, "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, "no-sync"]},
            "postgresql": {
                "listen": address,
                "connect_address": address,
                "data_dir": str(self.data),
                "bin_dir": str(self.cluster.bin),
                "pgpass": f"{self.data}.pgpass",
                "pg_hba": HBA,
                "authentication": {"superuser": {"username": "postgres"}, "replication": {"username": "replicator"}},
                "parameters": parameters,
                "before_stop": f"{folder}/before_stop {self.port}",
                "callbacks": {event: f"{folder}/on_role_change" for event in ("on_role_change", "on_start", "on_restart")},
            },
        }

    def postmaster(self):
        """Its pid, None if it does not run."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().split()[0])
        except (OSError, IndexError):
            return None
        return pid if is_running(pid) else None

    def kill(self):
        """Patroni first, so that it cannot start another PostgreSQL."""
        self.process.kill()
        self.process.wait()
        postmaster = self.postmaster()
        for pid in filter(None, [postmaster, *children(postmaster)]):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def stat(pid):
    """State and parent."""
    state, parent = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[:2]
    return state, int(parent)


def is_running(pid):
    try:
        return stat(pid)[0] != "Z"
    except OSError:
        return False


def children(parent):
    for pid in [int(path.name) for path in pathlib.Path("/proc").glob("[0-9]*")]:
        try:
            if stat(pid)[1] == parent:
                yield pid
        except OSError:
            pass


def wait_for(what, is_there, seconds):
    deadline = time.time() + seconds
    while not (found := is_there()):
        if time.time() > deadline:
            sys.exit(f"waited {seconds} s for {what}")
        time.sleep(0.02)
    return found


def newest_postgres():
    found = glob.glob("/usr/lib/postgresql/*/bin")
    return max(found, key=lambda path: int(path.split("/")[4])) if found else pathlib.Path(shutil.which("initdb") or "").parent


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]

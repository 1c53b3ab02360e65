#!/usr/bin/env python3
"""What a pooler costs: pgbench through pgweir, through PgBouncer and straight to PostgreSQL.

    benches/peers.py [--rounds 5] [--seconds 4] [--only NAME,...] [--pgbouncer PROGRAM] [--pgweir PROGRAM]

Starts a PostgreSQL of its own and each pooler with one worker and its default settings. Rounds are interleaved, and a
ratio is taken within a round: machines are noisy, but not that fast. CPU is the pooler's own, user and system time of all
its threads, per transaction, less what logging in costs. System calls need perf and root. Wall-clock figures rank nobody.
"""
import argparse
import base64
import glob
import hashlib
import hmac
import os
import pathlib
import re
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

REPO = pathlib.Path(__file__).resolve().parent.parent
TICK = os.sysconf("SC_CLK_TCK")
ROWS = "SELECT repeat('x', 990) FROM generate_series(1, 1000)"
# Name: pgbench's options; then the user, who decides about the login (see RULES); then sslmode.
WORK = {
    "simple, 16 clients": ("-S -c 16", "postgres", "disable"),
    "simple, 64 clients, 20 servers": ("-S -c 64", "postgres", "disable"),
    "extended, 16 clients": ("-S -M extended -c 16", "postgres", "disable"),
    "prepared, 16 clients": ("-S -M prepared -c 16", "postgres", "disable"),
    "1 MB result, 4 clients": ("-f {dir}/rows.sql -c 4", "postgres", "disable"),
    "simple over TLS, 16 clients": ("-S -c 16", "postgres", "require"),
    "1 MB result over TLS, 4 clients": ("-f {dir}/rows.sql -c 4", "postgres", "require"),
    "login": ("-S -C -c 16", "postgres", "disable"),
    "SCRAM login": ("-S -C -c 16", "secret", "disable"),
    "TLS login": ("-S -C -c 8", "postgres", "require"),
}
RULES = "host all postgres 127.0.0.1/32 trust\nhost all secret 127.0.0.1/32 scram-sha-256\n"
PASSWORD = "correct horse battery staple"
# Fewer than usual: they are the client's work, and there is to be time for logins. A pooler with a verifier needs none.
ITERATIONS = 64


def main():
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="pgweir-bench.") as folder:
        bench = Bench(pathlib.Path(folder), arguments)
        try:
            bench.start()
            results = bench.rounds()
            calls = bench.system_calls()
            idle = bench.idle_clients()
        finally:
            bench.stop()
    report(results, calls, idle)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--only", default=",".join(WORK).replace(", ", "; "), help="parts of workload names, by commas, a semicolon standing for a comma")
    parser.add_argument("--idle", type=int, default=5000, help="idle clients; 0 leaves that out")
    parser.add_argument("--pgbouncer", default=shutil.which("pgbouncer"))
    parser.add_argument("--pgweir", default=str(pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target")) / "release/pgweir"))
    return parser.parse_args()


class Bench:
    def __init__(self, folder, arguments):
        self.dir, self.arguments = folder, arguments
        self.bin = pathlib.Path(os.environ.get("PG_BIN") or newest_postgres())
        self.processes, self.ports, self.pids = [], {}, {}
        parts = [part.strip().replace(";", ",") for part in arguments.only.split(",")]
        self.work = {name: options for name, options in WORK.items() if any(part in name for part in parts)}

    # Processes -----------------------------------------------------------------------------------------------------------

    def start(self):
        if os.geteuid() == 0:
            shutil.chown(self.dir, "postgres")
        (self.dir / "rows.sql").write_text(ROWS + ";\n")
        port = self.ports["direct"] = free_port()
        self.run(self.bin / "initdb", "-D", self.dir / "data", "-U", "postgres", "-A", "trust", "--no-sync")
        options = f"-p {port} -k {self.dir} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=200 -c shared_buffers=256MB"
        self.run(self.bin / "pg_ctl", "-D", self.dir / "data", "-w", "-o", options, "-l", self.dir / "postgres.log", "start")
        self.run(self.bin / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "bench")
        self.run(self.bin / "pgbench", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-i", "-q", "-s", "10", "bench")
        self.run(self.bin / "createuser", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-s", "secret")
        (self.dir / "users").write_text(f'"postgres" ""\n"secret" "{scram_verifier(PASSWORD)}"\n')
        (self.dir / "hba").write_text(RULES)
        make = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout key -out cert".split()
        subprocess.run(["openssl", *make], cwd=self.dir, check=True, stderr=subprocess.DEVNULL)
        (self.dir / "key").chmod(0o644)
        self.start_pooler("pgweir", self.arguments.pgweir, "workers = 1\nhttp_port = 0\n")
        if self.arguments.pgbouncer:
            self.start_pooler("pgbouncer", self.arguments.pgbouncer, "")

    def start_pooler(self, name, program, settings, database=None):
        port = self.ports[name] = free_port()
        copy = self.dir / f"{name}.exe"
        shutil.copy(program, copy)
        (self.dir / f"{name}.ini").write_text(
            f"[databases]\nbench = {database or self.primary()}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {port}\nunix_socket_dir =\nauth_type = hba\nauth_hba_file = {self.dir}/hba\n"
            f"auth_file = {self.dir}/users\nclient_tls_sslmode = allow\nclient_tls_key_file = {self.dir}/key\n"
            f"client_tls_cert_file = {self.dir}/cert\nserver_tls_sslmode = disable\n"
            f"pool_mode = transaction\ndefault_pool_size = 20\nmax_client_conn = 20000\nmax_prepared_statements = 200\n"
            f"log_connections = 0\nlog_disconnections = 0\nlogfile = {self.dir}/{name}.log\n{settings}"
        )
        process = subprocess.Popen(self.unprivileged(copy, "-q", self.dir / f"{name}.ini"))
        self.processes.append(process)
        self.pids[name] = process.pid
        for _ in range(100):
            try:
                return socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                time.sleep(0.05)
        sys.exit(f"{name} does not start: see its log")

    def primary(self):
        return f"host=127.0.0.1 port={self.ports['direct']}"

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()
        if (self.dir / "data/postmaster.pid").exists():
            self.run(self.bin / "pg_ctl", "-D", self.dir / "data", "-m", "immediate", "stop")

    def unprivileged(self, *command):
        command = [str(word) for word in command]
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--", *command] if os.geteuid() == 0 else command

    def run(self, *command):
        done = subprocess.run(self.unprivileged(*command), cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if done.returncode:
            sys.exit(f"{command[0]}: {done.stderr.decode()}")

    # Measurements --------------------------------------------------------------------------------------------------------

    def pgbench(self, name, work, *limit):
        options, user, sslmode = work
        log = tempfile.mkdtemp(dir=self.dir)
        command = [self.bin / "pgbench", "-n", *options.format(dir=self.dir).split(), *limit, "-l", "--log-prefix", f"{log}/l"]
        command += ["-h", "127.0.0.1", "-p", str(self.ports[name]), "-U", user, "bench"]
        environment = os.environ | {"PGSSLMODE": "disable" if name == "direct" else sslmode, "PGPASSWORD": PASSWORD}
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            sys.exit(f"pgbench through {name}: {done.stderr}")
        transactions = int(re.search(r"actually processed: (\d+)", done.stdout)[1])
        rate = float(re.search(r"tps = ([\d.]+)", done.stdout)[1])
        times = sorted(int(line.split()[2]) for file in glob.glob(f"{log}/*") for line in open(file, encoding="ascii"))
        shutil.rmtree(log)
        return transactions, rate, times[len(times) // 2] / 1000, times[len(times) * 99 // 100] / 1000

    def cpu(self, name):
        if name not in self.pids:
            return 0
        fields = pathlib.Path(f"/proc/{self.pids[name]}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK * 1e6

    def rounds(self):
        results = {}
        for number in range(self.arguments.rounds):
            for work, options in self.work.items():
                for name in self.ports:
                    idle = self.cpu(name)
                    self.pgbench(name, options, "-t", "1")
                    before = self.cpu(name)
                    transactions, rate, p50, p99 = self.pgbench(name, options, "-T", str(self.arguments.seconds))
                    spent = self.cpu(name) - before - (before - idle)
                    results.setdefault(work, {}).setdefault(name, []).append((spent / transactions, rate, p50, p99))
            print(f"round {number + 1} of {self.arguments.rounds}", file=sys.stderr)
        return results

    def system_calls(self):
        """Per transaction, counted by perf while pgbench runs."""
        if os.geteuid() != 0 or not shutil.which("perf"):
            return {}
        calls = {}
        for work, options in self.work.items():
            for name, pid in self.pids.items():
                command = ["perf", "stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", str(pid), "--", "sleep", "3"]
                perf = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
                transactions, *_ = self.pgbench(name, options, "-T", "2")
                count = perf.communicate()[1].split(",")[0]
                if count.isdigit():
                    calls.setdefault(work, {})[name] = int(count) / transactions
        return calls

    def idle_clients(self):
        """Resident memory per client, before and after all of them have sent a query."""
        count, idle = self.arguments.idle, {}
        for name, pid in self.pids.items() if count else []:
            empty = resident(pid)
            clients = [log_in(self.ports[name]) for _ in range(count)]
            connected = resident(pid)
            for _ in range(2):
                for client in clients:
                    client.sendall(b"Q" + struct.pack("!I", 13) + b"SELECT 1\0")
                for client in clients:
                    until_ready(client)
            idle[name] = [(connected - empty) / count, (resident(pid) - empty) / count]
            for client in clients:
                client.close()
        return idle


def newest_postgres():
    found = glob.glob("/usr/lib/postgresql/*/bin")
    return max(found, key=lambda path: int(path.split("/")[4])) if found else pathlib.Path(shutil.which("initdb") or "").parent


def scram_verifier(password):
    """As PostgreSQL stores it: pg_authid.rolpassword."""
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
    client_key, server_key = (hmac.digest(salted, name, "sha256") for name in (b"Client Key", b"Server Key"))
    text = [base64.b64encode(part).decode() for part in (salt, hashlib.sha256(client_key).digest(), server_key)]
    return f"SCRAM-SHA-256${ITERATIONS}:{text[0]}${text[1]}:{text[2]}"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def resident(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1])


def log_in(port):
    client = socket.create_connection(("127.0.0.1", port), 30)
    body = struct.pack("!I", 3 << 16) + b"user\0postgres\0database\0bench\0\0"
    client.sendall(struct.pack("!I", len(body) + 4) + body)
    until_ready(client)
    return client


def until_ready(client):
    received = b""
    while received[-6:-1] != b"Z\0\0\0\x05":
        more = client.recv(65536)
        if not more:
            sys.exit("a client was disconnected")
        received += more


# Report ------------------------------------------------------------------------------------------------------------------


def report(results, calls, idle):
    print("| workload | pooler | CPU µs/txn | ratio [spread] | calls/txn | txn/s | p50 ms | p99 ms |\n|---|---|---|---|---|---|---|---|")
    for work, peers in results.items():
        base = [sample[0] for sample in peers.get("pgbouncer", [])]
        for name, samples in peers.items():
            cpu, rate, p50, p99 = (statistics.median(column) for column in zip(*samples))
            ratio = ""
            if base and name != "direct":
                ratios = sorted(mine[0] / theirs for mine, theirs in zip(samples, base))
                ratio = f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}–{ratios[-1]:.2f}]"
            count = calls.get(work, {}).get(name)
            shown = [f"{cpu:.1f}" if name != "direct" else "", ratio, f"{count:.2f}" if count else ""]
            print(f"| {work} | {name} | {' | '.join(shown)} | {rate:.0f} | {p50:.2f} | {p99:.2f} |")
    for name, (connected, used) in idle.items():
        print(f"\n{name}: {connected:.2f} KB per idle client, {used:.2f} KB after all of them have sent queries", end="")
    print()


if __name__ == "__main__":
    main()

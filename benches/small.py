#!/usr/bin/env python3
"""What a pooler does with a tenth of a CPU and 256 MB: 200 clients of pgbench on 20 servers, all of them logging in by SCRAM.

    benches/small.py [--cpu 0.1] [--memory 256] [--clients 200] [--rounds 3] [--seconds 10] [--pgbouncer PROGRAM] [--pgweir PROGRAM]

Starts a PostgreSQL of its own, which has the rest of the machine, as pgbench does. Rounds are interleaved; what is shown is the
median of them. Needs root, for the limits: a control group where version 2 of them has both controllers, else one of version 1
for the CPU and RLIMIT_DATA for memory.
"""
import argparse
import os
import pathlib
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import peers

GROUPS = pathlib.Path("/sys/fs/cgroup")
WORK = {"-S": "one SELECT", "-S -M prepared": "one SELECT, prepared", "": "TPC-B"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", type=float, default=0.1, help="CPUs")
    parser.add_argument("--memory", type=int, default=256, help="MB")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--pgbouncer", default=shutil.which("pgbouncer"))
    parser.add_argument("--pgweir", default=str(pathlib.Path(os.environ.get("CARGO_TARGET_DIR", peers.REPO / "target")) / "release/pgweir"))
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("limits need root")
    with tempfile.TemporaryDirectory(prefix="pgweir-small.") as folder:
        bench = Small(pathlib.Path(folder), arguments)
        try:
            bench.start()
            bench.report()
        finally:
            bench.stop()


class Small(peers.Bench):
    def __init__(self, folder, arguments):
        arguments.only = ""
        self.groups, self.started = [], {}
        super().__init__(folder, arguments)

    def unprivileged(self, *command):
        """Poolers are confined from their first instruction on."""
        command = super().unprivileged(*command)
        name = next((word for word in map(pathlib.Path, command) if word.suffix == ".exe"), None)
        return [sys.executable, __file__, "--confined", *map(str, self.limits(name.stem)), *command] if name else command

    def limits(self, name):
        """Memory limit of the process itself in bytes, 0 if there is none; then the group that it has to enter."""
        quota, memory = int(self.arguments.cpu * 100_000), self.arguments.memory << 20
        controllers = GROUPS / "cgroup.subtree_control"
        is_new = controllers.exists() and {"cpu", "memory"} <= set(controllers.read_text().split())
        group = (GROUPS if is_new else GROUPS / "cpu") / f"pgweir-small-{os.getpid()}-{name}"
        group.mkdir()
        self.groups.append(group)
        if is_new:
            (group / "cpu.max").write_text(f"{quota} 100000")
            (group / "memory.max").write_text(str(memory))
        else:
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        return 0 if is_new else memory, group

    def start_pooler(self, name, *rest):
        start = time.monotonic()
        super().start_pooler(name, *rest)
        self.started[name] = time.monotonic() - start

    def stop(self):
        super().stop()
        for group in self.groups:
            group.rmdir()

    def report(self):
        results = {}
        for number in range(self.arguments.rounds):
            for options, title in WORK.items():
                for name in self.pids:
                    results.setdefault((name, title), []).append(self.sample(name, options))
            print(f"round {number + 1} of {self.arguments.rounds}", file=sys.stderr)
        print("| pooler | work | txn/s | errors | mean ms | p99 ms | CPU | memory, at most |\n|---|---|---|---|---|---|---|---|")
        for (name, title), samples in sorted(results.items(), key=lambda result: result[0][0] != "pgweir"):
            rate, errors, mean, p99, cpu, memory = zip(*samples)
            median = statistics.median
            print(
                f"| {name} | {title} | {median(rate):.0f} | {sum(errors)} | {median(mean):.0f} | {median(p99):.0f} | "
                f"{median(cpu):.3f} | {max(memory):.1f} MB |"
            )
        print("\n" + ", ".join(f"{name} listens {seconds:.2f} s after its start" for name, seconds in self.started.items()))

    def sample(self, name, options):
        """Transactions per second, errors, mean and 99th percentile in ms, CPUs used, most memory so far in MB."""
        log = tempfile.mkdtemp(dir=self.dir)
        command = [self.bin / "pgbench", "-n", *options.split(), "-c", self.arguments.clients, "-j", "2", "-T", self.arguments.seconds]
        command += ["-l", "--log-prefix", f"{log}/l", "-h", "127.0.0.1", "-p", self.ports[name], "-U", "secret", "bench"]
        before, start = self.cpu(name), time.monotonic()
        environment = os.environ | {"PGSSLMODE": "disable", "PGPASSWORD": peers.PASSWORD}
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, env=environment)
        used = (self.cpu(name) - before) / 1e6 / (time.monotonic() - start)
        if done.returncode:
            sys.exit(f"pgbench through {name}: {done.stderr}")
        errors = int(re.search(r"number of failed transactions: (\d+)", done.stdout)[1])
        rate = float(re.search(r"tps = ([\d.]+)", done.stdout)[1])
        times = sorted(int(line.split()[2]) for file in pathlib.Path(log).iterdir() for line in file.open(encoding="ascii"))
        shutil.rmtree(log)
        memory = re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{self.pids[name]}/status").read_text())[1]
        return rate, errors, sum(times) / len(times) / 1000, times[len(times) * 99 // 100] / 1000, used, int(memory) / 1024


def confined(memory, group, *command):
    (pathlib.Path(group) / "cgroup.procs").write_text(str(os.getpid()))
    if int(memory):
        resource.setrlimit(resource.RLIMIT_DATA, (int(memory), int(memory)))
    os.execvp(command[0], command)


if __name__ == "__main__":
    confined(*sys.argv[2:]) if sys.argv[1:2] == ["--confined"] else main()

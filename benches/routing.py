#!/usr/bin/env python3
"""What it costs pgweir to send reads to a replica: the same work with read_write_split off and on.

    benches/routing.py [--rounds 7] [--seconds 3] [--pgweir PROGRAM]

Starts a PostgreSQL primary and a replica of its own, and pgweir twice with one worker. Rounds are interleaved, and a ratio is
taken within a round. CPU is pgweir's own per transaction, less what logging in costs.
"""
import argparse
import os
import pathlib
import statistics
import sys
import tempfile
import time

import peers

WORK = {"simple": "-S", "extended": "-S -M extended", "prepared": "-S -M prepared", "TPC-B, prepared": "-M prepared"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--pgweir", default=str(pathlib.Path(os.environ.get("CARGO_TARGET_DIR", peers.REPO / "target")) / "release/pgweir"))
    with tempfile.TemporaryDirectory(prefix="pgweir-routing.") as folder:
        bench = Routing(pathlib.Path(folder), parser.parse_args())
        try:
            bench.start()
            bench.report()
        finally:
            bench.stop()


class Routing(peers.Bench):
    def __init__(self, folder, arguments):
        arguments.only, arguments.pgbouncer = "", None
        super().__init__(folder, arguments)

    def start(self):
        super().start()
        port = self.ports["replica"] = peers.free_port()
        source = f"host=127.0.0.1 port={self.ports['direct']} user=postgres"
        self.run(self.bin / "pg_basebackup", "-D", self.dir / "replica", "-R", "-X", "stream", "-c", "fast", "--no-sync", "-d", source)
        options = f"-p {port} -k {self.dir} -c listen_addresses=127.0.0.1 -c max_connections=200 -c shared_buffers=256MB"
        self.run(self.bin / "pg_ctl", "-D", self.dir / "replica", "-w", "-o", options, "-l", self.dir / "replica.log", "start")
        database = f"host=127.0.0.1,127.0.0.1 port={self.ports['direct']},{port} read_write_split=1"
        self.start_pooler("split", self.arguments.pgweir, "workers = 1\nhttp_port = 0\n", database)

    def stop(self):
        if (self.dir / "replica/postmaster.pid").exists():
            self.run(self.bin / "pg_ctl", "-D", self.dir / "replica", "-m", "immediate", "stop")
        super().stop()

    def sample(self, name, options):
        """CPU µs per transaction and transactions per second."""
        work = (f"{options} -c 16", "postgres", "disable")
        idle = self.cpu(name)
        self.pgbench(name, work, "-t", "1")
        before = self.cpu(name)
        transactions, rate, *_ = self.pgbench(name, work, "-T", str(self.arguments.seconds))
        return (self.cpu(name) - before - (before - idle)) / transactions, rate

    def report(self):
        # It takes a moment until it is known who is what, and what a read is.
        self.sample("split", "-S")
        time.sleep(2)
        results = {}
        for number in range(self.arguments.rounds):
            for title, options in WORK.items():
                # Whoever comes first has an advantage, or none.
                order = ["pgweir", "split"] if number % 2 else ["split", "pgweir"]
                samples = {name: self.sample(name, options) for name in order}
                results.setdefault(title, []).append((samples["pgweir"], samples["split"]))
            print(f"round {number + 1} of {self.arguments.rounds}", file=sys.stderr)
        print("| work | CPU µs/txn off | on | ratio [spread] | txn/s off | on |\n|---|---|---|---|---|---|")
        for title, samples in results.items():
            ratios = sorted(on[0] / off[0] for off, on in samples)
            off, on = ([statistics.median(column) for column in zip(*side)] for side in zip(*samples))
            ratio = f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}–{ratios[-1]:.2f}]"
            print(f"| {title} | {off[0]:.1f} | {on[0]:.1f} | {ratio} | {off[1]:.0f} | {on[1]:.0f} |")


if __name__ == "__main__":
    main()

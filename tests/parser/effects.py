"""Runs PostgreSQL's regression tests and looks at what the statements that are called reads really do.

    pip install -r tests/parser/requirements.txt
    cargo build --example classify
    python tests/parser/effects.py CLASSIFY POSTGRESQL_SOURCE 'host=… user=postgres dbname=scratch'

The database should be empty and is not worth anything afterwards. Before each read the catalog is asked again if anything
has changed. A read that is assigned a transaction ID or takes an advisory lock has done what a replica cannot or must not
do: that fails the check.
"""

import pathlib
import re
import subprocess
import sys

import psycopg

from check import statements

QUERY = (pathlib.Path(__file__).parents[2] / "src/sql/catalog.sql").read_text()
EFFECTS = """SELECT pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL OR EXISTS (SELECT FROM pg_catalog.pg_locks
WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid())"""

MAY_READ = ("select", "with", "values", "table", "explain", "(")
NO_DDL = ("insert", "update", "delete", "set", "reset", "show", "explain", "analyze", "vacuum", "truncate", "fetch")


def first_word(sql):
    """The first word."""
    code = re.sub(r"^(\s|--[^\n]*(\n|$)|/\*.*?\*/)+", "", sql, flags=re.S)
    return (re.match(r"\w+|.", code) or [""])[0].lower()


class Classifier:
    def __init__(self, program, conninfo):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.connection = psycopg.connect(conninfo, autocommit=True, cursor_factory=psycopg.ClientCursor)
        self.connection.execute("SET search_path = pg_catalog")
        self.stale = True

    def verdict(self, sql):
        if self.stale:
            rows = self.connection.execute(QUERY.encode()).fetchall()
            text = ["t" if f is True else "f" if f is False else "\\N" if f is None else str(f) for r in rows for f in r]
            lines = ["\t".join(text[at : at + 8]) for at in range(0, len(text), 8)]
            self.tell("catalog:" + "\n".join(lines))
            self.stale = False
        self.tell(sql)
        return self.process.stdout.readline().decode().strip()

    def tell(self, text):
        self.process.stdin.write(text.encode() + b"\0")
        self.process.stdin.flush()


def main():
    program, source, conninfo = sys.argv[1:4]
    classifier = Classifier(program, conninfo)
    counts = dict(statements=0, failed=0, reads=0, wrong=0)
    files = sorted(pathlib.Path(source, "src/test/regress/sql").glob("*.sql"), key=lambda f: (f.stem != "test_setup", f.stem))
    for file in files:
        connection = psycopg.connect(conninfo, autocommit=True, cursor_factory=psycopg.ClientCursor)
        connection.execute("SET statement_timeout = '5s'")
        for sql, _ in statements(file.read_bytes().decode("utf-8", "replace")):
            run_one(connection, classifier, file.name, sql, counts)
            if connection.closed:
                break
        connection.close()
        # What it has left behind, its temporary objects for one, is gone.
        classifier.stale = True
    print(", ".join(f"{count} {what}" for what, count in counts.items()))
    return 1 if counts["wrong"] else 0


def run_one(connection, classifier, file, sql, counts):
    if "\0" in sql or sql.lstrip().lower().startswith("copy"):
        return
    counts["statements"] += 1
    idle = connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    first = first_word(sql)
    is_read = idle and first in MAY_READ and classifier.verdict(sql) == "replica"
    try:
        if is_read:
            connection.execute("BEGIN")
        connection.execute(sql.encode())
        if is_read:
            counts["reads"] += 1
            if connection.execute(EFFECTS).fetchone()[0]:
                counts["wrong"] += 1
                print(f"{file}: is called a read, but: {' '.join(sql.split())[:300]}", flush=True)
    except psycopg.Error as error:
        counts["failed"] += 1
        if is_read and getattr(error, "sqlstate", None) == "25006":
            print(f"{file}: {error}: {sql}")
    finally:
        if is_read and not connection.closed:
            connection.execute("ROLLBACK")
    if not is_read and first not in NO_DDL:
        classifier.stale = True


if __name__ == "__main__":
    sys.exit(main())

"""Compares the classifier with PostgreSQL's own parser, statement by statement.

    pip install -r tests/parser/requirements.txt
    cargo build --example classify
    python tests/parser/check.py CLASSIFY POSTGRESQL_SOURCE

CLASSIFY is the program built from examples/classify.rs, POSTGRESQL_SOURCE a source tree of PostgreSQL: the statements are
those of its regression tests, and `pg_proc.dat` says which functions are volatile. Each statement is judged alone and in
front of and behind harmless ones in one query. Fails if a statement that writes, or might, is called a read.
"""

import pathlib
import re
import subprocess
import sys

from pglast import ast, parse_sql
from pglast.parser import ParseError
from pglast.visitors import Visitor

# Volatile by the book, and harmless.
HARMLESS = """array_sample array_shuffle clock_timestamp gen_random_uuid pg_partition_ancestors pg_partition_tree pg_sleep random random_normal
timeofday""".split()
# Not volatile by the book, but not for a replica.
HARMFUL = """current_setting pg_current_xact_id pg_current_xact_id_if_assigned pg_is_in_recovery txid_current
txid_current_if_assigned query_to_xml table_to_xml schema_to_xml database_to_xml""".split()
READS = (ast.SelectStmt,)


def volatility(source):
    """Name -> whether a function of that name is volatile."""
    text = (source / "src/include/catalog/pg_proc.dat").read_text()
    volatile = {}
    for entry in re.split(r"^\{ oid =>", text, flags=re.M)[1:]:
        name = re.search(r"proname => '([^']+)'", entry).group(1)
        kind = re.search(r"provolatile => '(.)'", entry)
        volatile[name] = volatile.get(name, False) or (kind is not None and kind.group(1) == "v")
    return volatile


class Finder(Visitor):
    """Looks for whatever makes a query something else than a read."""

    def __init__(self, volatile):
        self.volatile = volatile
        self.why = None
        self.unknown = None

    def visit_FuncCall(self, _, node):
        names = [part.sval for part in node.funcname]
        name = names[-1]
        if name in HARMFUL or (self.volatile.get(name) and name not in HARMLESS):
            self.why = f"calls {name}"
        elif name not in self.volatile or len(names) > 1 and names[0] != "pg_catalog":
            self.unknown = f"calls {name}, which is not PostgreSQL's"

    def visit_IntoClause(self, _, node):
        self.why = "INTO"

    def visit_LockingClause(self, _, node):
        self.why = "locks rows"

    def visit_InsertStmt(self, _, node):
        self.why = "writes"

    visit_UpdateStmt = visit_DeleteStmt = visit_MergeStmt = visit_InsertStmt


def judge(statement, volatile):
    """Why it is no read, and why that is not known."""
    finder = Finder(volatile)
    if isinstance(statement, ast.ExplainStmt):
        inner = statement.query
        if not isinstance(inner, READS):
            return f"EXPLAIN of {type(inner).__name__}", None
        finder(inner)
    elif isinstance(statement, ast.CopyStmt):
        if statement.is_from or statement.is_program or statement.filename:
            return "COPY", None
        if statement.query is not None:
            if not isinstance(statement.query, READS):
                return "COPY of something else", None
            finder(statement.query)
    elif isinstance(statement, ast.TransactionStmt):
        return "leaves a transaction open, or ends one", None
    elif isinstance(statement, READS):
        finder(statement)
    else:
        return type(statement).__name__, None
    return finder.why, finder.unknown


def statements(text):
    """The statements of a psql script that PostgreSQL's parser accepts; what psql alone understands is left out."""
    text = re.sub(r"^\\.*$", "", text, flags=re.M)
    text = re.sub(r"\\(gset|gexec|gdesc|gx|g|crosstabview|bind)\b[^\n]*|\\;", ";", text)
    text = re.sub(r"(?<![:\w]):(['\"]?)(\w+)\1", r"'\2'", text)
    for piece in pieces(text):
        try:
            parsed = parse_sql(piece)
        except ParseError:
            continue
        for raw in parsed:
            yield piece[raw.stmt_location :][: raw.stmt_len or None], raw.stmt


def pieces(text):
    """Cut at semicolons at the end of a line, joined again until they parse."""
    piece = ""
    lines = 0
    for line in text.splitlines(keepends=True):
        piece += line
        lines += 1
        if line.rstrip().endswith(";") or ";" in line and "--" in line:
            try:
                parse_sql(piece)
            except ParseError:
                if lines < 60:
                    continue
            yield piece
            piece, lines = "", 0
    yield piece


def classify(program, texts):
    answer = subprocess.run([program], input=b"".join(t.encode() + b"\0" for t in texts), stdout=subprocess.PIPE, check=True)
    return answer.stdout.decode().split()


def main():
    program, source = sys.argv[1], pathlib.Path(sys.argv[2])
    volatile = volatility(source)
    assert volatile["nextval"] and not volatile["lower"] and len(volatile) > 2500
    found = []
    for file in sorted((source / "src/test/regress/sql").glob("*.sql")):
        text = file.read_bytes().decode("utf-8", "replace")
        found += [(file.name, sql, judge(tree, volatile)) for sql, tree in statements(text) if "\0" not in sql]
    assert len(found) > 20000, len(found)
    reads = recognised = unknown = wrong = 0
    missed = {}
    texts = [sql for _, sql, _ in found]
    for form in ("{}", "SELECT 1; {}", "{}; SELECT 1"):
        verdicts = classify(program, [form.format(sql) for sql in texts])
        assert len(verdicts) == len(found)
        for (file, sql, (why, doubt)), verdict in zip(found, verdicts):
            if verdict == "replica" and (why or doubt):
                wrong += 1
                print(f"{file}: {why or doubt}, but is called a read: {sql.strip()[:300]}")
            if form == "{}":
                reads += not why and not doubt
                unknown += not why and doubt is not None
                recognised += verdict == "replica"
                if not why and not doubt and verdict != "replica":
                    missed.setdefault(file, []).append(sql.strip())
    if "-v" in sys.argv:
        for file, all_of_it in missed.items():
            for sql in all_of_it:
                print(f"missed in {file}: {' '.join(sql.split())[:200]}")
    print(
        f"{len(found)} statements: {reads} reads, of which {recognised} are recognised ({recognised / reads:.1%}); "
        f"{unknown} more call functions that are not PostgreSQL's; {wrong} wrongly called a read"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

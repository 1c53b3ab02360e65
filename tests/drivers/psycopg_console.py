"""psycopg at the console: PGHOST, PGPORT, PGUSER, PGPASSWORD and PGDATABASE say where."""

import psycopg
from psycopg.rows import dict_row


def autocommit():
    with psycopg.connect(autocommit=True, row_factory=dict_row) as connection:
        # Prepared by the driver after five executions.
        for _ in range(8):
            databases = connection.execute("SHOW DATABASES").fetchall()
        assert databases[0]["pool_size"] == 5, databases
        for binary in False, True:
            with connection.cursor(binary=binary) as cursor:
                row = cursor.execute("SHOW STATS").fetchone()
                assert row["database"] == "pgbouncer" and row["total_query_count"] > 0, row
        with connection.pipeline():
            versions = [connection.execute("SHOW VERSION") for _ in range(20)]
            assert len({version.fetchone()["version"] for version in versions}) == 1
        try:
            connection.execute("RESUME app")
        except psycopg.errors.ProtocolViolation as error:
            assert error.diag.message_primary == "database app is not paused"
        else:
            raise AssertionError("resumed what was not paused")
        try:
            connection.execute("KILL_CLIENT %s", (1,))
        except psycopg.errors.FeatureNotSupported:
            pass
        else:
            raise AssertionError("a parameter was taken")


def transactions():
    # Without autocommit the driver says BEGIN before the first statement.
    with psycopg.connect(application_name="checks") as connection:
        names = [row[18] for row in connection.execute("SHOW CLIENTS").fetchall()]
        assert "checks" in names, names
        connection.commit()
        connection.execute("SHOW POOLS")
        connection.rollback()


autocommit()
transactions()
print("psycopg at the console ok")

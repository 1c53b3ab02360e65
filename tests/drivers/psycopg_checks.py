"""psycopg through the pooler: PGHOST, PGPORT, PGUSER, PGPASSWORD and PGDATABASE say where."""

import asyncio
import threading

import psycopg


def statements(connection):
    with connection.transaction():
        connection.execute("CREATE TEMP TABLE checked (a int, b text) ON COMMIT DROP")
        with connection.cursor() as cursor:
            with cursor.copy("COPY checked FROM STDIN") as copy:
                for number in range(1000):
                    copy.write_row((number, f"row {number}"))
            cursor.executemany("INSERT INTO checked VALUES (%s, %s)", [(n, "more") for n in range(100)])
            assert cursor.execute("SELECT count(*) FROM checked").fetchone() == (1100,)
        with connection.cursor(name="server_side") as cursor:
            cursor.execute("SELECT a FROM checked ORDER BY a")
            assert len(cursor.fetchmany(50)) == 50
    # Prepared by the driver after five executions.
    for number in range(20):
        assert connection.execute("SELECT %s::int + 1", (number,)).fetchone() == (number + 1,)


def pipelines(connection):
    with connection.pipeline() as pipeline:
        cursors = [connection.execute("SELECT %s::int", (number,)) for number in range(100)]
        pipeline.sync()
        assert [cursor.fetchone()[0] for cursor in cursors] == list(range(100))
    try:
        with connection.pipeline():
            connection.execute("SELECT 1/0")
            connection.execute("SELECT 1")
    except psycopg.errors.DivisionByZero:
        pass
    else:
        raise AssertionError("an error in a pipeline went unnoticed")
    assert connection.execute("SELECT 'still there'").fetchone() == ("still there",)


def cancelling(connection):
    threading.Timer(0.3, connection.cancel_safe).start()
    try:
        connection.execute("SELECT pg_sleep(20)")
    except psycopg.errors.QueryCanceled:
        pass
    else:
        raise AssertionError("not cancelled")
    assert connection.execute("SELECT 1").fetchone() == (1,)


async def many():
    async def one(number):
        async with await psycopg.AsyncConnection.connect(autocommit=True) as connection:
            await connection.set_autocommit(True)
            for _ in range(10):
                cursor = await connection.execute("SELECT %s::int, pg_sleep(0.001)", (number,))
                assert (await cursor.fetchone())[0] == number

    await asyncio.gather(*(one(number) for number in range(50)))


with psycopg.connect(autocommit=True) as connection:
    statements(connection)
    pipelines(connection)
    cancelling(connection)
asyncio.run(many())
print("psycopg", psycopg.__version__, "ok")

// node-postgres through the pooler: PGHOST, PGPORT, PGUSER, PGPASSWORD and PGDATABASE say where.
import assert from "node:assert/strict";
import pg from "pg";

const pool = new pg.Pool({ max: 30 });

// Many queries at once, simple, with parameters and with named statements.
const work = Array.from({ length: 300 }, async (_, n) => {
  assert.equal((await pool.query(`SELECT ${n} AS n`)).rows[0].n, n);
  assert.equal((await pool.query("SELECT $1::int AS n", [n])).rows[0].n, n);
  const named = { name: `plus-${n % 7}`, text: `SELECT $1::int + ${n % 7} AS n`, values: [n] };
  assert.equal((await pool.query(named)).rows[0].n, n + (n % 7));
});
await Promise.all(work);

// Transactions, errors in them, and a connection that goes on after both.
const client = await pool.connect();
await client.query("BEGIN");
await assert.rejects(client.query("SELECT 1/0"), { code: "22012" });
await assert.rejects(client.query("SELECT 1"), { code: "25P02" });
await client.query("ROLLBACK");
assert.equal((await client.query("SELECT 'still there' AS t")).rows[0].t, "still there");
client.release();
await pool.end();
console.log("node-postgres ok");

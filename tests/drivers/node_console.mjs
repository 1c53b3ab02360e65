// node-postgres at the console: PGHOST, PGPORT, PGUSER, PGPASSWORD and PGDATABASE say where.
import assert from "node:assert/strict";
import pg from "pg";

const client = new pg.Client({ application_name: "checks" });
await client.connect();
assert.equal((await client.query("SHOW DATABASES")).rows[0].pool_size, 5);
const named = { name: "lists", text: "SHOW LISTS", values: [] };
for (let n = 0; n < 3; n++) assert.equal((await client.query(named)).rows.length, 14);
assert.ok((await client.query("SHOW CLIENTS")).rows.some((row) => row.application_name === "checks"));
await assert.rejects(client.query("KILL_CLIENT $1", [1]), { code: "0A000" });
await assert.rejects(client.query("nonsense"), { code: "42601" });
assert.equal((await client.query("SELECT 1")).rows[0]["?column?"], 1);
await client.query("BEGIN");
await client.query("COMMIT");
await client.end();
console.log("node-postgres at the console ok");

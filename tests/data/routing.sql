-- The database that the statements in routing.tsv are about.
CREATE TABLE accounts (id int PRIMARY KEY, owner text, balance numeric, data jsonb, at timestamptz);
CREATE TABLE entries (id serial PRIMARY KEY, account int, amount numeric);
CREATE UNLOGGED TABLE scratch (a int);
CREATE TABLE measurements (at date, value int) PARTITION BY RANGE (at);
CREATE UNLOGGED TABLE measurements_1 PARTITION OF measurements FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE events (at date, what text) PARTITION BY RANGE (at);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE people (name text, mood mood);

CREATE FUNCTION total(int) RETURNS numeric LANGUAGE sql STABLE AS 'SELECT sum(amount) FROM entries WHERE account = $1';
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * $1';
CREATE FUNCTION touch(int) RETURNS int LANGUAGE sql VOLATILE AS 'UPDATE accounts SET at = now() WHERE id = $1 RETURNING id';
CREATE FUNCTION unmarked(int) RETURNS int LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION definer() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT touch(1)';
CREATE FUNCTION mixed(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT $1';
CREATE FUNCTION mixed(text) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT touch(1)';
CREATE FUNCTION visits(people) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT touch(1)';
CREATE FUNCTION greeting(people) RETURNS text LANGUAGE sql STABLE AS 'SELECT ''hello '' || $1.name';
CREATE FUNCTION tally(int) RETURNS SETOF int LANGUAGE sql STABLE AS 'SELECT generate_series(1, $1)';
CREATE FUNCTION initcap(int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT touch($1)';
CREATE FUNCTION pg_catalog.ascii(int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT public.touch($1)';
CREATE FUNCTION setseed(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT $1';
CREATE SCHEMA app;
CREATE FUNCTION app.lookup(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT $1';
CREATE FUNCTION app.record(int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT public.touch($1)';
CREATE FUNCTION app.total(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT $1';
CREATE FUNCTION app."Strange ""name"""(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT $1';

CREATE VIEW rich AS SELECT id, owner FROM accounts WHERE balance > 1000;
CREATE VIEW totals AS SELECT id, total(id) FROM accounts;
CREATE VIEW touched AS SELECT touch(id) FROM accounts;
CREATE VIEW over_touched AS SELECT * FROM touched;
CREATE VIEW numbered AS SELECT nextval('entries_id_seq'), id FROM accounts;
CREATE VIEW scratched AS SELECT * FROM scratch;
CREATE VIEW app.waiting AS SELECT pid FROM pg_locks WHERE NOT granted;
CREATE MATERIALIZED VIEW stored AS SELECT nextval('entries_id_seq'), id FROM accounts;

CREATE FUNCTION step(int, int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT $1 + $2';
CREATE FUNCTION steady(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + $2';
CREATE AGGREGATE bad_sum (int) (sfunc = step, stype = int, initcond = '0');
CREATE AGGREGATE good_sum (int) (sfunc = steady, stype = int, initcond = '0');
CREATE FUNCTION loud(int, int) RETURNS boolean LANGUAGE sql VOLATILE AS 'SELECT touch($1) = $2';
CREATE FUNCTION quiet(int, int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 = $2';
CREATE OPERATOR <%%> (leftarg = int, rightarg = int, function = loud);
CREATE OPERATOR <##> (leftarg = int, rightarg = int, function = quiet);

CREATE FUNCTION valid(int) RETURNS boolean LANGUAGE sql VOLATILE AS 'SELECT touch($1) IS NULL';
CREATE DOMAIN checked AS int CHECK (valid(VALUE));
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE with_checked (a checked);
CREATE TABLE with_positive (a positive);

CREATE FUNCTION may_see(int) RETURNS boolean LANGUAGE sql VOLATILE AS 'SELECT touch($1) IS NULL';
CREATE TABLE guarded (id int);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY guard ON guarded USING (may_see(id));
CREATE TABLE owned (id int, owner text);
ALTER TABLE owned ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON owned USING (owner = current_user);

CREATE FUNCTION takes_checked(checked) RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
CREATE FUNCTION gives_checked() RETURNS SETOF checked LANGUAGE sql STABLE AS 'SELECT 1';
CREATE FUNCTION takes_row(with_checked) RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
CREATE FUNCTION takes_number(bigint DEFAULT nextval('entries_id_seq')) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT $1';
CREATE FUNCTION takes_touched(int DEFAULT touch(1)) RETURNS int LANGUAGE sql STABLE AS 'SELECT $1';
CREATE FUNCTION takes_both(positive, int DEFAULT twice(1)) RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
CREATE FUNCTION takes_either(int, checked) RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
CREATE OPERATOR <@@> (leftarg = int, rightarg = checked, function = takes_either);
CREATE TYPE checked_range AS RANGE (subtype = checked);

CREATE TYPE temper AS ENUM ('sad', 'ok', 'happy');
CREATE FUNCTION converted(people) RETURNS temper LANGUAGE sql VOLATILE AS 'SELECT $1.mood::text::temper';
CREATE CAST (people AS temper) WITH FUNCTION converted(people);

CREATE FOREIGN DATA WRAPPER elsewhere;
CREATE SERVER far FOREIGN DATA WRAPPER elsewhere;
CREATE FOREIGN TABLE remote (a int) SERVER far;

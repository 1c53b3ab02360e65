-- What the classifier has to know of a database: what there is in it, and what uses what. With search_path = pg_catalog.
--
-- Rows: what | kind | id | schema | name | flag | used kind or note | used id
--   'object': a function ('f'), relation ('r'), type ('t') or operator ('o'). Flag: what it says of itself is good.
--   'use':    the object calls or reads the other one when it is called or read itself.
--   'all':    why nothing in this database can be trusted to be a read.
--
-- Objects made by initdb have OIDs below 16384. What depends on them is not in pg_depend as far as they are pinned, so
-- their functions are looked for in the text of the expressions.
WITH kinds (class, kind) AS (
    VALUES ('pg_proc'::regclass, 'f'), ('pg_class', 'r'), ('pg_type', 't'), ('pg_operator', 'o')
), expressions (kind, owner, class, id, tree) AS (
    -- Views. A materialized view is read like a table.
    SELECT 'r', r.ev_class, 'pg_rewrite'::regclass, r.oid, r.ev_action::text
      FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
     WHERE r.ev_type = '1' AND c.relkind = 'v'
    UNION ALL
    -- Row-level security.
    SELECT 'r', p.polrelid, 'pg_policy', p.oid, p.polqual::text
      FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
     WHERE c.relrowsecurity
    UNION ALL
    -- Checks of domains: casting evaluates them.
    SELECT 't', contypid, 'pg_constraint', oid, conbin::text
      FROM pg_constraint
     WHERE contypid <> 0
    UNION ALL
    -- Defaults of arguments: the caller evaluates them.
    SELECT 'f', oid, 'pg_proc', oid, proargdefaults::text
      FROM pg_proc
     WHERE oid >= 16384 AND proargdefaults IS NOT NULL
), uses (kind, owner, used_kind, used) AS (
    SELECT e.kind, e.owner, k.kind, d.refobjid
      FROM expressions e JOIN pg_depend d ON d.classid = e.class AND d.objid = e.id JOIN kinds k ON k.class = d.refclassid
    UNION
    SELECT e.kind, e.owner, 'f', m[1]::oid
      FROM expressions e, regexp_matches(e.tree, ':(?:funcid|opfuncid|aggfnoid|winfnoid) (\d+)', 'g') m
     WHERE m[1] <> '0'
    UNION
    -- Functions and operators use the types of their arguments and results, to which values are converted; aggregates their
    -- functions; types their element, base, sub- and row types and the functions that read and write them; relations the
    -- types of their columns.
    SELECT o.kind, d.objid, k.kind, d.refobjid
      FROM pg_depend d JOIN kinds o ON o.class = d.classid JOIN kinds k ON k.class = d.refclassid
     WHERE d.objid >= 16384 AND (o.kind <> 'r' OR k.kind = 't')
    UNION
    SELECT 't', t.oid, 'r', t.typrelid FROM pg_type t JOIN pg_class c ON c.oid = t.typrelid WHERE c.relkind = 'c'
    UNION
    -- A parent is read with its children.
    SELECT 'r', inhparent, 'r', inhrelid FROM pg_inherits
    UNION
    -- Sorting, grouping and comparing call what a type's operator classes and operators are made of.
    SELECT 't', amproclefttype, 'f', amproc FROM pg_amproc WHERE amproc >= 16384
    UNION
    SELECT 't', part, 'o', o.oid
      FROM pg_operator o, unnest(ARRAY[o.oprleft, o.oprright]) part
     WHERE o.oid >= 16384 AND o.oprname IN ('=', '<>', '<', '<=', '>', '>=', '~', '!~', '~*', '!~*', '~~', '!~~', '~~*', '!~~*')
       AND part <> 0 AND (part >= 16384 OR greatest(o.oprleft, o.oprright) < 16384)
    UNION
    -- A cast goes with its target. One that nobody has to write, or to a type that has several names, goes with nothing
    -- that can be seen.
    SELECT 't', CASE WHEN castcontext = 'i' OR casttarget < 16384 THEN 0 ELSE casttarget END, 'f', castfunc
      FROM pg_cast
     WHERE oid >= 16384 AND castfunc >= 16384
), leaving (id) AS (
    -- Functions that make temporary objects or change settings for longer than a transaction, as far as that can be read in
    -- their text: SET behind the beginning of a statement or of a string. What is written in C is not looked at. A body that
    -- was parsed (PostgreSQL 14 and later) can call set_config, which is 2078, but not do the rest.
    SELECT oid
      FROM pg_proc p
     WHERE prosrc = '' AND prolang = 14 AND to_jsonb(p) ->> 'prosqlbody' ~ ':funcid 2078 '
    UNION ALL
    SELECT oid
      FROM pg_proc
     WHERE oid >= 16384 AND prolang NOT IN (12, 13) AND prosrc ~* 'set_config|temp|\mset\s'
       AND (prosrc ~* '\m(into|create|global|local|replace)\s+temp(orary)?\M|\mpg_temp'
            OR regexp_replace(prosrc, 'set_config\s*\([^()]*(\([^()]*\)[^()]*)*,\s*true\s*\)', '', 'gi') ~* '\mset_config\M'
            OR prosrc ~* '(^|[;''"$]|\m(begin|then|else|loop)\M)(\s|--[^\n]*(\n|$)|/\*.*?\*/)*set\s+(?!(local|constraints|transaction)\M)\w')
), triggers (relation) AS (
    SELECT tgrelid FROM pg_trigger WHERE tgfoid IN (SELECT id FROM leaving)
)
SELECT 'use', kind, owner, NULL, NULL, NULL, used_kind, used FROM uses
UNION ALL
-- Flag for functions: not volatile. 'attribute': can be called with one argument, and so as if it were a column of that. 'namesake':
-- PostgreSQL has one of that name, too. 'leaves': leaves something in the session. Of PostgreSQL's own functions only those are
-- of interest here that may tell or change something.
SELECT 'object', 'f', p.oid, n.nspname, p.proname, p.provolatile <> 'v',
       concat_ws(' ',
           CASE WHEN p.pronargs > 0 AND p.pronargs - p.pronargdefaults <= 1 THEN 'attribute' END,
           CASE WHEN p.oid >= 16384 AND EXISTS (SELECT FROM pg_proc b WHERE b.proname = p.proname AND b.oid < 16384
                                                   AND b.pronamespace = 'pg_catalog'::regnamespace)
                THEN 'namesake' END,
           CASE WHEN p.oid IN (SELECT id FROM leaving) THEN 'leaves' END),
       NULL
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE p.oid >= 16384 OR p.oid IN (SELECT used FROM uses WHERE used_kind = 'f')
    OR p.provolatile <> 'i' AND p.pronargs > 0 AND p.pronargs - p.pronargdefaults <= 1
       AND p.proargtypes[0] NOT IN ('internal'::regtype, 'cstring'::regtype)
UNION ALL
-- Flag: a standby does not have it, or has something else: unlogged and temporary tables, sequences. What is behind a foreign
-- table nobody knows. 'leaves': a trigger on it leaves something in the session.
SELECT 'object', 'r', c.oid, n.nspname, c.relname, c.relpersistence = 'p' AND c.relkind NOT IN ('f', 'S'),
       CASE WHEN c.oid IN (SELECT relation FROM triggers) THEN 'leaves' END, NULL
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid IN (SELECT owner FROM uses WHERE kind = 'r') OR c.relpersistence <> 'p' OR c.relkind IN ('f', 'S')
    OR c.oid IN (SELECT relation FROM triggers)
UNION ALL
SELECT 'object', 't', t.oid, n.nspname, t.typname, true, NULL, NULL
  FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
 WHERE t.oid IN (SELECT owner FROM uses WHERE kind = 't')
UNION ALL
SELECT 'object', 'o', o.oid, n.nspname, o.oprname, true, NULL, NULL
  FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
 WHERE o.oid >= 16384
UNION ALL
SELECT 'all', NULL, NULL, NULL, 'default_transaction_isolation is serializable', NULL, NULL, NULL
 WHERE current_setting('default_transaction_isolation') = 'serializable'

-- Run once as superuser in the database postgres: psql -v password=... -f lookup.sql
-- Vault's users live for a day and stand in no file. pgweir looks them up with this, as pgweir_lookup, whose password is
-- in the Secret of the userlist. The third column ends what is remembered of a user together with the user.
CREATE ROLE pgweir_lookup LOGIN PASSWORD :'password';
CREATE SCHEMA pgweir;
CREATE FUNCTION pgweir.lookup(role text, OUT name text, OUT secret text, OUT seconds float8)
    RETURNS SETOF record
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog
    AS $$
        SELECT rolname::text,
               CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END,
               CASE WHEN isfinite(rolvaliduntil) THEN extract(epoch FROM rolvaliduntil - now()) END
        FROM pg_authid
        WHERE rolname = role AND rolcanlogin AND NOT rolsuper
    $$;
REVOKE ALL ON FUNCTION pgweir.lookup(text) FROM public;
GRANT USAGE ON SCHEMA pgweir TO pgweir_lookup;
GRANT EXECUTE ON FUNCTION pgweir.lookup(text) TO pgweir_lookup;

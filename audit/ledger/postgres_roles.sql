-- The roles and the schema of one Assay database. Run it once, as a superuser, connected to that database, before its
-- tables are made. Safe to repeat.
--
-- Nobody can log in as these roles. Make login roles of your own and put them into one each:
--   CREATE ROLE assay_migrator LOGIN IN ROLE assay_owner;    -- makes and changes tables, before start
--   CREATE ROLE assay_gateway  LOGIN IN ROLE assay_writer;   -- the gateway; must never be able to become assay_owner
--   CREATE ROLE assay_auditor  LOGIN IN ROLE assay_reader;   -- reads the ledger's tables, nothing else
-- and let only these in: GRANT CONNECT ON DATABASE … TO assay_migrator, assay_gateway, assay_auditor;

DO $roles$
DECLARE
  role text;
BEGIN
  FOREACH role IN ARRAY ARRAY['assay_owner', 'assay_writer', 'assay_reader'] LOOP
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = role) THEN
      EXECUTE format('CREATE ROLE %I', role);
    END IF;
    EXECUTE format('ALTER ROLE %I NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS', role);
  END LOOP;
  EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
END
$roles$;

-- Without a schema to create in and without temporary tables, nothing can take the place of the ledger's tables.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;

CREATE SCHEMA IF NOT EXISTS assay AUTHORIZATION assay_owner;
REVOKE ALL ON SCHEMA assay FROM PUBLIC;
GRANT USAGE ON SCHEMA assay TO assay_writer, assay_reader;

CREATE TABLE log_record (
    idx BIGINT NOT NULL,
    leaf BYTEA NOT NULL,
    body BYTEA NOT NULL,
    unit VARCHAR NOT NULL,
    tseq BIGINT NOT NULL,
    type VARCHAR NOT NULL,
    job VARCHAR NOT NULL,
    PRIMARY KEY (idx)
);
CREATE INDEX log_record_job ON log_record (job, idx) WHERE job <> '';
CREATE INDEX log_record_unit ON log_record (unit, tseq);
CREATE TABLE log_tile (
    level BIGINT NOT NULL,
    n BIGINT NOT NULL,
    hashes BYTEA NOT NULL,
    PRIMARY KEY (level, n)
);
CREATE TABLE log_checkpoint (
    size BIGINT NOT NULL,
    note BYTEA NOT NULL,
    PRIMARY KEY (size)
);
CREATE FUNCTION assay.log_refuse() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $guard$
BEGIN
  RAISE EXCEPTION USING MESSAGE = TG_TABLE_NAME || ' is append-only', ERRCODE = 'insufficient_privilege';
END
$guard$;
CREATE FUNCTION assay.log_record_guard() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $guard$
DECLARE
  tail bytea := convert_to(',"tseq":' || NEW.tseq || ',"type":"' || NEW.type || '","v":1}', 'UTF8');
BEGIN
  IF NEW.idx IS DISTINCT FROM (SELECT COALESCE(MAX(idx) + 1, 0) FROM assay.log_record)
    OR NEW.tseq IS DISTINCT FROM (SELECT COALESCE(MAX(tseq) + 1, 1) FROM assay.log_record WHERE unit = NEW.unit)
    OR NEW.leaf IS DISTINCT FROM sha256('\x00'::bytea || NEW.body)
    OR position(convert_to(',"tenant":"' || NEW.unit || '","tprev":', 'UTF8') IN NEW.body) = 0
    OR substring(NEW.body FROM length(NEW.body) - length(tail) + 1) IS DISTINCT FROM tail THEN
    RAISE EXCEPTION 'log_record takes only the next leaf' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END
$guard$;
CREATE FUNCTION assay.log_tile_guard() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $guard$
BEGIN
  IF NEW.n IS DISTINCT FROM (SELECT COALESCE(MAX(n) + 1, 0) FROM assay.log_tile WHERE level = NEW.level)
    OR length(NEW.hashes) IS DISTINCT FROM 16352 THEN
    RAISE EXCEPTION 'log_tile takes only the next tile' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END
$guard$;
CREATE FUNCTION assay.log_checkpoint_guard() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $guard$
BEGIN
  IF NEW.size < 1 OR NEW.size <= (SELECT COALESCE(MAX(size), 0) FROM assay.log_checkpoint) THEN
    RAISE EXCEPTION 'log_checkpoint takes only a larger tree' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END
$guard$;
CREATE TRIGGER log_record_guard BEFORE INSERT ON assay.log_record FOR EACH ROW EXECUTE FUNCTION assay.log_record_guard();
ALTER TABLE assay.log_record ENABLE ALWAYS TRIGGER log_record_guard;
CREATE TRIGGER log_record_no_change BEFORE UPDATE OR DELETE ON assay.log_record FOR EACH ROW EXECUTE FUNCTION assay.log_refuse();
ALTER TABLE assay.log_record ENABLE ALWAYS TRIGGER log_record_no_change;
CREATE TRIGGER log_record_no_truncate BEFORE TRUNCATE ON assay.log_record FOR EACH STATEMENT EXECUTE FUNCTION assay.log_refuse();
ALTER TABLE assay.log_record ENABLE ALWAYS TRIGGER log_record_no_truncate;
CREATE TRIGGER log_tile_guard BEFORE INSERT ON assay.log_tile FOR EACH ROW EXECUTE FUNCTION assay.log_tile_guard();
ALTER TABLE assay.log_tile ENABLE ALWAYS TRIGGER log_tile_guard;
CREATE TRIGGER log_tile_no_change BEFORE UPDATE OR DELETE ON assay.log_tile FOR EACH ROW EXECUTE FUNCTION assay.log_refuse();
ALTER TABLE assay.log_tile ENABLE ALWAYS TRIGGER log_tile_no_change;
CREATE TRIGGER log_tile_no_truncate BEFORE TRUNCATE ON assay.log_tile FOR EACH STATEMENT EXECUTE FUNCTION assay.log_refuse();
ALTER TABLE assay.log_tile ENABLE ALWAYS TRIGGER log_tile_no_truncate;
CREATE TRIGGER log_checkpoint_guard BEFORE INSERT ON assay.log_checkpoint FOR EACH ROW EXECUTE FUNCTION assay.log_checkpoint_guard();
ALTER TABLE assay.log_checkpoint ENABLE ALWAYS TRIGGER log_checkpoint_guard;
CREATE TRIGGER log_checkpoint_no_change BEFORE UPDATE OR DELETE ON assay.log_checkpoint FOR EACH ROW EXECUTE FUNCTION assay.log_refuse();
ALTER TABLE assay.log_checkpoint ENABLE ALWAYS TRIGGER log_checkpoint_no_change;
CREATE TRIGGER log_checkpoint_no_truncate BEFORE TRUNCATE ON assay.log_checkpoint FOR EACH STATEMENT EXECUTE FUNCTION assay.log_refuse();
ALTER TABLE assay.log_checkpoint ENABLE ALWAYS TRIGGER log_checkpoint_no_truncate;
REVOKE ALL ON assay.log_record, assay.log_tile, assay.log_checkpoint FROM PUBLIC, assay_writer, assay_reader;
GRANT SELECT, INSERT ON assay.log_record, assay.log_tile, assay.log_checkpoint TO assay_writer;
GRANT SELECT ON assay.log_record, assay.log_tile, assay.log_checkpoint TO assay_reader;

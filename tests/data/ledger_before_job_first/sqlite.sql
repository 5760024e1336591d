CREATE TABLE log_record (
    idx INTEGER NOT NULL,
    leaf BLOB NOT NULL,
    body BLOB NOT NULL,
    unit VARCHAR NOT NULL,
    tseq INTEGER NOT NULL,
    type VARCHAR NOT NULL,
    job VARCHAR NOT NULL,
    PRIMARY KEY (idx)
);
CREATE INDEX log_record_job ON log_record (job, idx) WHERE job <> '';
CREATE INDEX log_record_unit ON log_record (unit, tseq);
CREATE TABLE log_tile (
    level INTEGER NOT NULL,
    n INTEGER NOT NULL,
    hashes BLOB NOT NULL,
    PRIMARY KEY (level, n)
);
CREATE TABLE log_checkpoint (
    size INTEGER NOT NULL,
    note BLOB NOT NULL,
    PRIMARY KEY (size)
);
CREATE TRIGGER log_checkpoint_no_update BEFORE UPDATE ON log_checkpoint BEGIN SELECT RAISE(ABORT, 'log_checkpoint is append-only'); END;
CREATE TRIGGER log_checkpoint_no_delete BEFORE DELETE ON log_checkpoint BEGIN SELECT RAISE(ABORT, 'log_checkpoint is append-only'); END;
CREATE TRIGGER log_record_no_update BEFORE UPDATE ON log_record BEGIN SELECT RAISE(ABORT, 'log_record is append-only'); END;
CREATE TRIGGER log_record_no_delete BEFORE DELETE ON log_record BEGIN SELECT RAISE(ABORT, 'log_record is append-only'); END;
CREATE TRIGGER log_tile_no_update BEFORE UPDATE ON log_tile BEGIN SELECT RAISE(ABORT, 'log_tile is append-only'); END;
CREATE TRIGGER log_tile_no_delete BEFORE DELETE ON log_tile BEGIN SELECT RAISE(ABORT, 'log_tile is append-only'); END;
CREATE TRIGGER log_record_guard BEFORE INSERT ON log_record WHEN NEW.idx IS NOT (SELECT COALESCE(MAX(idx) + 1, 0) FROM log_record) OR length(NEW.leaf) IS NOT 32 OR NEW.tseq IS NOT (SELECT COALESCE(MAX(tseq) + 1, 1) FROM log_record WHERE unit = NEW.unit) OR NOT instr(NEW.body, CAST(',"tenant":"' || NEW.unit || '","tprev":' AS BLOB)) OR substr(NEW.body, -length(',"tseq":' || NEW.tseq || ',"type":"' || NEW.type || '","v":1}')) IS NOT CAST(',"tseq":' || NEW.tseq || ',"type":"' || NEW.type || '","v":1}' AS BLOB) BEGIN SELECT RAISE(ABORT, 'log_record takes only the next leaf'); END;
CREATE TRIGGER log_tile_guard BEFORE INSERT ON log_tile WHEN NEW.n IS NOT (SELECT COALESCE(MAX(n) + 1, 0) FROM log_tile WHERE level = NEW.level) OR length(NEW.hashes) IS NOT 16352 BEGIN SELECT RAISE(ABORT, 'log_tile takes only the next tile'); END;
CREATE TRIGGER log_checkpoint_guard BEFORE INSERT ON log_checkpoint WHEN NEW.size <= (SELECT COALESCE(MAX(size), 0) FROM log_checkpoint) OR NEW.size < 1 BEGIN SELECT RAISE(ABORT, 'log_checkpoint takes only a larger tree'); END;

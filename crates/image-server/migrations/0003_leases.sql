-- Leases: who works on an operation, which lease of it that is (each claim and each return counts one), and until when, by the
-- clock of the database.
ALTER TABLE operations ADD COLUMN owner TEXT;
ALTER TABLE operations ADD COLUMN epoch BIGINT NOT NULL DEFAULT 0;
ALTER TABLE operations ADD COLUMN lease_until BIGINT;
-- Which version of its source the recorded blocks were read from.
ALTER TABLE operations ADD COLUMN source_version TEXT;
CREATE INDEX operations_by_attempt ON operations (image_id, kind);

-- Name of the manifest that holds the content. Attempts of one creation have different ones, so that a worker that has lost its
-- lease cannot write into a published image.
ALTER TABLE images ADD COLUMN manifest TEXT;
UPDATE images SET manifest = id WHERE status <> 1;
CREATE INDEX images_by_manifest ON images (manifest) WHERE manifest IS NOT NULL;

-- What running creations have found their source to consist of: claims that keep blocks from being collected, and the progress
-- from which another worker continues. Gone with the commit that ends the operation.
CREATE TABLE ingest_blocks (
    image_id        TEXT   NOT NULL,
    part            BIGINT NOT NULL,
    -- Hexadecimal SHA-256; NULL for zeroes.
    block_id        TEXT,
    -- 1 when the block is known to be in the store.
    stored          BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (image_id, part)
);
CREATE INDEX ingest_blocks_by_block ON ingest_blocks (block_id);

-- Blocks that a collection is about to remove: nobody relies on them until the sentence is lifted or has run out.
CREATE TABLE condemned_blocks (
    block_id        TEXT   PRIMARY KEY NOT NULL,
    collector       TEXT   NOT NULL,
    condemned_at    BIGINT NOT NULL
);

-- One row: which catalog this is. The store of blocks says the same, so that a collection does not take the blocks of another catalog
-- for blocks that nobody uses.
CREATE TABLE catalog_identity (id TEXT NOT NULL);

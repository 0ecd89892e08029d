-- Images and the operations on them. Times are microseconds since 1970 in UTC, sizes are bytes.
-- Words that every SQL database has: a catalog on PostgreSQL gets the same tables.

CREATE TABLE images (
    id              TEXT   PRIMARY KEY NOT NULL,
    folder_id       TEXT   NOT NULL,
    name            TEXT   NOT NULL,
    family          TEXT   NOT NULL,
    created_at      BIGINT NOT NULL,
    -- Number of yandex.cloud.compute.v1.Image.Status.
    status          BIGINT NOT NULL,
    storage_size    BIGINT NOT NULL,
    min_disk_size   BIGINT NOT NULL,
    -- Everything that is never asked for by value: canonical JSON of an Image that holds only these fields.
    attributes      TEXT   NOT NULL
);

-- One name in a folder among the images that exist or will: CREATING 1, READY 2.
CREATE UNIQUE INDEX images_by_name ON images (folder_id, name) WHERE name <> '' AND status IN (1, 2);
CREATE INDEX images_by_creation ON images (folder_id, created_at, id);

CREATE TABLE operations (
    id                  TEXT   PRIMARY KEY NOT NULL,
    kind                TEXT   NOT NULL CHECK (kind IN ('CREATE', 'DELETE')),
    state               TEXT   NOT NULL
        CHECK (state IN ('QUEUED', 'RUNNING', 'CANCELLING', 'SUCCEEDED', 'FAILED', 'CANCELLED')),
    image_id            TEXT   NOT NULL,
    created_by          TEXT   NOT NULL,
    created_at          BIGINT NOT NULL,
    modified_at         BIGINT NOT NULL,
    -- A secret: the pre-signed URL, kept because a restart reads it again, and cleared when the operation ends.
    source_uri          TEXT,
    -- What the caller asked for; 0 means what the content needs.
    wanted_disk_size    BIGINT NOT NULL,
    idempotency_key     TEXT,
    request_digest      TEXT,
    -- 1 from the end of a creation without an image until blocks that no image has were collected.
    leftovers           BIGINT NOT NULL DEFAULT 0,
    -- How it ended: canonical JSON of google.rpc.Status, or of google.protobuf.Any.
    error               TEXT,
    response            TEXT
);

CREATE UNIQUE INDEX operations_by_key ON operations (idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX operations_unfinished ON operations (created_at) WHERE state IN ('QUEUED', 'RUNNING', 'CANCELLING');
CREATE INDEX operations_by_leftovers ON operations (leftovers) WHERE leftovers = 1;

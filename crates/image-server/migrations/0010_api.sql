-- What the API keeps besides images and the operations that a worker runs. Times are microseconds since 1970 in UTC.

-- Operations that were over when they were accepted: the change and its record are one commit, nothing is ever queued.
CREATE TABLE changes (
    id                  TEXT   PRIMARY KEY NOT NULL,
    image_id            TEXT   NOT NULL,
    description         TEXT   NOT NULL,
    created_by          TEXT   NOT NULL,
    created_at          BIGINT NOT NULL,
    idempotency_key     TEXT,
    request_digest      TEXT,
    -- Canonical JSON of google.protobuf.Any.
    metadata            TEXT   NOT NULL,
    response            TEXT   NOT NULL
);

CREATE UNIQUE INDEX changes_by_key ON changes (idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX changes_by_image ON changes (image_id, created_at, id);
CREATE INDEX operations_by_image ON operations (image_id, created_at, id);
CREATE INDEX images_by_family ON images (folder_id, family, created_at, id) WHERE family <> '';

-- Who may do what with an image, beyond the rights on its folder.
CREATE TABLE access_bindings (
    image_id            TEXT   NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    role_id             TEXT   NOT NULL,
    subject_type        TEXT   NOT NULL,
    subject_id          TEXT   NOT NULL,
    PRIMARY KEY (image_id, role_id, subject_type, subject_id)
);

-- Tokens that were given out, by the SHA-256 of what the caller shows: who reads this table can show none.
CREATE TABLE iam_tokens (
    digest              TEXT   PRIMARY KEY NOT NULL,
    account_id          TEXT   NOT NULL,
    expires_at          BIGINT NOT NULL
);

CREATE INDEX iam_tokens_by_end ON iam_tokens (expires_at);

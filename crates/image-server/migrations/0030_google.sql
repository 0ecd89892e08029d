-- What Compute Engine's API keeps besides what images and operations have already.

-- Of images: canonical JSON of a google.cloud.compute.v1.Image that holds only what our Image has no field for; NULL for nothing.
ALTER TABLE images ADD COLUMN google TEXT;

-- What operations are about, also when it is gone: their paths name the project, their targets the image.
ALTER TABLE operations ADD COLUMN folder_id TEXT NOT NULL DEFAULT '';
ALTER TABLE operations ADD COLUMN image_name TEXT NOT NULL DEFAULT '';
ALTER TABLE changes ADD COLUMN folder_id TEXT NOT NULL DEFAULT '';
ALTER TABLE changes ADD COLUMN image_name TEXT NOT NULL DEFAULT '';
UPDATE operations SET
    folder_id = COALESCE((SELECT images.folder_id FROM images WHERE images.id = operations.image_id), ''),
    image_name = COALESCE((SELECT images.name FROM images WHERE images.id = operations.image_id), '');
UPDATE changes SET
    folder_id = COALESCE((SELECT images.folder_id FROM images WHERE images.id = changes.image_id), ''),
    image_name = COALESCE((SELECT images.name FROM images WHERE images.id = changes.image_id), '');

-- Of how many parts the source consists, once that is known: with those in ingest_blocks how far the operation is.
ALTER TABLE operations ADD COLUMN parts BIGINT NOT NULL DEFAULT 0;

-- Pages of a folder in the orders that List offers, each read from its index: without these, a page of 100 images sorts all that the
-- folder has.
CREATE INDEX images_by_id ON images (folder_id, id);
CREATE INDEX images_listed_by_name ON images (folder_id, name, id);

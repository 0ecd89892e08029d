//! Images that have the name already: whether one of them is the one that is wanted.
//!
//! The contract has no place for a guest digest, so it is kept in a label. A label has 63 characters, a digest 64: the last
//! one is left out, which leaves 252 bits of it.

use disk_convert::GuestDigest;
use image_api::compute::image::Status;
use image_api::compute::{CreateImageMetadata, ListImagesRequest};
use image_api::operation::operation::Result as Ending;
use image_api::{Image, Operation, any_of};

use super::Create;
use crate::args::IfExists;
use crate::error::Error;

/// The label that says what an Image holds.
const LABEL: &str = "image-prep-digest";

/// Characters of a label's value.
const LABEL_LEN: usize = 63;

fn label_of(digest: GuestDigest) -> String {
    let mut text = digest.to_string();
    text.truncate(LABEL_LEN);
    text
}

impl Create<'_> {
    /// The Image that is there already and will do, as the operation that would have made it. Where nothing was said of such
    /// Images, the service decides.
    pub(super) async fn existing_image(
        &self,
        digest: Option<GuestDigest>,
    ) -> Result<Option<Operation>, Error> {
        let Some(what @ (IfExists::Fail | IfExists::Reuse)) = self.args.if_exists else { return Ok(None) };
        let Some(image) = self.find_image().await? else { return Ok(None) };
        let (name, id) = (image.name.clone(), image.id.clone());
        if what == IfExists::Fail {
            return Err(Error::ImageExists { name, id });
        }
        match objection(&image, digest) {
            Some(why) => Err(Error::ImageOther { name, id, why }),
            None => {
                self.context.note(&format!("the Image `{name}` holds this disk already"));
                Ok(Some(Operation {
                    done: true,
                    created_at: image.created_at,
                    metadata: Some(any_of(&CreateImageMetadata { image_id: id })),
                    result: Some(Ending::Response(any_of(&image))),
                    ..Operation::default()
                }))
            }
        }
    }

    /// Has the Image say what it holds, so that the next run can reuse it.
    pub(super) fn label(&mut self, digest: GuestDigest) {
        if self.args.if_exists == Some(IfExists::Reuse) {
            self.fields.labels.insert(LABEL.to_owned(), label_of(digest));
        }
    }

    async fn find_image(&self) -> Result<Option<Image>, Error> {
        let request = ListImagesRequest {
            folder_id: self.fields.folder_id.clone(),
            // Names have no quotes; the request was checked.
            filter: format!("name = \"{}\"", self.fields.name),
            ..ListImagesRequest::default()
        };
        let found = self.client.list_images(&request, &self.context.cancel).await?;
        Ok(found.images.into_iter().find(|image| image.name == self.fields.name))
    }
}

/// What speaks against taking an Image for one of this disk.
fn objection(image: &Image, digest: Option<GuestDigest>) -> Option<String> {
    let Some(digest) = digest else { return Some("what a URL holds is not known here".to_owned()) };
    match image.labels.get(LABEL) {
        _ if image.status() != Status::Ready => Some(format!("it is {}", image.status().as_str_name())),
        None => Some(format!("it has no label {LABEL} to tell what it holds")),
        Some(label) if *label != label_of(digest) => {
            Some(format!("by its label {LABEL} it holds another disk"))
        }
        Some(_) => None,
    }
}

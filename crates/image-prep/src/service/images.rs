//! The image service of either cloud, as far as commands need it.
//!
//! Whichever cloud it is, an operation is ours: one that is done has the cloud's own image as its response, and Google's operation is
//! the metadata of ours. So a script reads one shape, and nothing of what the cloud says is lost.

use std::collections::BTreeMap;

use image_api::compute::create_image_request::Source;
use image_api::compute::{CreateImageMetadata, ListImagesRequest};
use image_api::google::{self, InsertImageRequest, RawDisk, new_image};
use image_api::operation::operation::Result as Ending;
use image_api::{
    Any, ApiError, Client, Code, ComputeEngine, CreateImageRequest, Image, JsonError, Operation,
    OperationOutcome, Timestamp, Uuid, WaitOptions, any_of, to_json_value, unpack,
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::error::Error;

/// The images of a folder or project; a clone shares its connections.
#[derive(Clone)]
pub(crate) enum Images {
    /// Over the API that image-server has of its own.
    Yandex(Client),
    /// Over Compute Engine's.
    Google(ComputeEngine),
}

/// A Create call in the words of its cloud; of a request that is not sent yet the source may be missing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Request {
    Yandex(CreateImageRequest),
    Google(InsertImageRequest),
}

impl Images {
    /// The client, where Images can be renamed and operations cancelled.
    pub(crate) fn yandex(&self) -> Option<&Client> {
        match self {
            Self::Yandex(client) => Some(client),
            Self::Google(_) => None,
        }
    }

    /// Asks for an Image. The same key with the same request gives the same operation.
    pub(crate) async fn create(
        &self,
        request: &Request,
        key: Uuid,
        cancel: &CancellationToken,
    ) -> Result<Operation, Error> {
        match (self, request) {
            (Self::Yandex(client), Request::Yandex(request)) => {
                Ok(client.create_image(request, key, cancel).await?)
            }
            (Self::Google(engine), Request::Google(request)) => {
                of_google(engine, engine.insert(request, key, cancel).await?, cancel).await
            }
            // Both are made for the cloud that the command names.
            _ => Err(Error::Panicked),
        }
    }

    /// The Image of a name.
    pub(crate) async fn find(
        &self,
        request: &Request,
        cancel: &CancellationToken,
    ) -> Result<Option<Found>, Error> {
        let name = request.name();
        match self {
            Self::Yandex(client) => {
                let request = ListImagesRequest {
                    folder_id: request.owner().to_owned(),
                    // Names have no quotes; the request was checked.
                    filter: format!("name = \"{name}\""),
                    ..ListImagesRequest::default()
                };
                let found = client.list_images(&request, cancel).await?.images;
                Ok(found.into_iter().find(|image| image.name == name).map(Found::from))
            }
            Self::Google(engine) => Ok(there(engine.get(name, cancel).await)?.map(Found::from)),
        }
    }

    /// An Image as it is now; `None` if it has gone.
    pub(crate) async fn again(
        &self,
        image: &Found,
        cancel: &CancellationToken,
    ) -> Result<Option<Found>, Error> {
        let found = match self {
            Self::Yandex(client) => there(client.get_image(&image.id, cancel).await)?.map(Found::from),
            Self::Google(engine) => there(engine.get(&image.name, cancel).await)?.map(Found::from),
        };
        // Another one may have the name by now.
        Ok(found.filter(|found| found.id == image.id))
    }

    /// Asks for the removal of an Image.
    pub(crate) async fn delete(&self, image: &Found, cancel: &CancellationToken) -> Result<Operation, Error> {
        match self {
            Self::Yandex(client) => Ok(client.delete_image(&image.id, Uuid::new_v4(), cancel).await?),
            Self::Google(engine) => {
                of_google(engine, engine.delete(&image.name, Uuid::new_v4(), cancel).await?, cancel).await
            }
        }
    }

    /// An operation.
    pub(crate) async fn operation(&self, id: &str, cancel: &CancellationToken) -> Result<Operation, Error> {
        match self {
            Self::Yandex(client) => Ok(client.get_operation(id, cancel).await?),
            Self::Google(engine) => of_google(engine, engine.operation(id, cancel).await?, cancel).await,
        }
    }

    /// Asks an operation to stop.
    pub(crate) async fn cancel(&self, id: &str, cancel: &CancellationToken) -> Result<Operation, Error> {
        match self {
            Self::Yandex(client) => Ok(client.cancel_operation(id, cancel).await?),
            Self::Google(_) => Err(Error::NoCancel),
        }
    }

    /// Waits until an operation is done, and returns it whether it succeeded or failed; `say` is told how far it is.
    pub(crate) async fn wait(
        &self,
        id: &str,
        options: &WaitOptions,
        say: impl Fn(String) + Send + Sync,
        cancel: &CancellationToken,
    ) -> Result<Operation, Error> {
        match self {
            Self::Yandex(client) => {
                let on_progress = |operation: &Operation| {
                    if matches!(operation.outcome(), OperationOutcome::Running) && operation.result.is_some()
                    {
                        say("failed, being rolled back".to_owned());
                    }
                };
                Ok(client.wait_operation(id, options, on_progress, cancel).await?)
            }
            Self::Google(engine) => {
                let on_progress = |operation: &google::Operation| {
                    if let Some(progress) = operation.progress {
                        say(format!("{progress} %"));
                    }
                };
                let done = engine.wait(id, options, on_progress, cancel).await?;
                of_google(engine, done, cancel).await
            }
        }
    }

    /// Asks for something small, so that a wrong endpoint or token is told before an upload and not after it.
    pub(crate) async fn list_one(&self, owner: &str, cancel: &CancellationToken) -> Result<(), ApiError> {
        match self {
            Self::Yandex(client) => {
                let request =
                    ListImagesRequest { folder_id: owner.to_owned(), page_size: 1, ..Default::default() };
                client.list_images(&request, cancel).await.map(drop)
            }
            Self::Google(engine) => engine.list(1, cancel).await.map(drop),
        }
    }
}

/// What is there, of what may not be.
fn there<T>(answer: Result<T, ApiError>) -> Result<Option<T>, ApiError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.code() == Code::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// True if the service said that it does not do it. A busy server, or a gateway before it, says nothing of the kind.
pub(crate) fn is_refused(error: &ApiError) -> bool {
    error.status().is_some() && !error.is_retryable()
}

/// Google's operation in our shape. One that has made an Image is given it, for as long as that is there.
async fn of_google(
    engine: &ComputeEngine,
    operation: google::Operation,
    cancel: &CancellationToken,
) -> Result<Operation, Error> {
    let has_made =
        operation.is_done() && operation.failure().is_none() && operation.operation_type() == "insert";
    let image = match has_made {
        true => match engine.get(operation.target_name(), cancel).await {
            Ok(image) => Some(image),
            // It has gone; or who may make Images may not look at them, and has made one all the same.
            Err(error) if is_refused(&error) => None,
            Err(error) => return Err(error.into()),
        },
        false => None,
    };
    // Another one may have the name by now.
    let image = image.filter(|image| operation.target_id.is_none() || image.id == operation.target_id);
    Ok(operation.into_ours(image.as_ref()))
}

impl Request {
    /// Name of the Image.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Yandex(request) => &request.name,
            Self::Google(request) => request.image_resource.as_ref().map_or("", |image| image.name.as_str()),
        }
    }

    /// Whose it is to be: a folder, or a project.
    pub(crate) fn owner(&self) -> &str {
        match self {
            Self::Yandex(request) => &request.folder_id,
            Self::Google(request) => &request.project,
        }
    }

    /// Adds a label.
    pub(crate) fn set_label(&mut self, key: &str, value: String) {
        let labels = match self {
            Self::Yandex(request) => &mut request.labels,
            Self::Google(request) => &mut request.image_resource.get_or_insert_default().labels,
        };
        labels.insert(key.to_owned(), value);
    }

    /// The request for one URL.
    pub(crate) fn with_uri(&self, uri: &str) -> Self {
        let mut request = self.clone();
        match &mut request {
            Self::Yandex(request) => request.source = Some(Source::Uri(uri.to_owned())),
            Self::Google(request) => {
                let raw = RawDisk { source: uri.to_owned(), container_type: "TAR".to_owned() };
                request.image_resource.get_or_insert_default().source = Some(new_image::Source::RawDisk(raw));
            }
        }
        request
    }

    /// The request without what it is made of.
    pub(crate) fn without_source(&self) -> Self {
        let mut request = self.clone();
        match &mut request {
            Self::Yandex(request) => request.source = None,
            Self::Google(request) => {
                if let Some(image) = &mut request.image_resource {
                    image.source = None;
                }
            }
        }
        request
    }

    /// Canonical JSON.
    pub(crate) fn to_json(&self) -> Result<Value, JsonError> {
        match self {
            Self::Yandex(request) => to_json_value(request),
            Self::Google(request) => to_json_value(request),
        }
    }
}

/// An Image, as far as it has to be known.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) id: String,
    pub(crate) name: String,
    /// In the cloud's words; READY is the same in both.
    pub(crate) status: String,
    pub(crate) labels: BTreeMap<String, String>,
    created_at: Option<Timestamp>,
    /// The cloud's own message.
    message: Any,
    /// What an operation says that is about this Image.
    metadata: Any,
}

impl Found {
    /// What an operation has made, if it has and says so.
    pub(crate) fn made_by(operation: &Operation) -> Option<Self> {
        match operation.outcome() {
            OperationOutcome::Succeeded(Some(response)) => Self::read(&response),
            _ => None,
        }
    }

    fn read(message: &Any) -> Option<Self> {
        let of_yandex = unpack::<Image>(message).map(Self::from);
        of_yandex.or_else(|_| unpack::<google::Image>(message).map(Self::from)).ok()
    }

    /// Whether it is there to be used.
    pub(crate) fn is_ready(&self) -> bool {
        self.status == "READY"
    }

    /// Whether an operation is at it.
    pub(crate) fn is_being_made(&self) -> bool {
        matches!(self.status.as_str(), "CREATING" | "PENDING")
    }

    /// The operation that would have made it.
    pub(crate) fn into_operation(self) -> Operation {
        Operation {
            done: true,
            created_at: self.created_at,
            metadata: Some(self.metadata),
            result: Some(Ending::Response(self.message)),
            ..Operation::default()
        }
    }
}

impl From<Image> for Found {
    fn from(image: Image) -> Self {
        Self {
            status: image.status().as_str_name().to_owned(),
            created_at: image.created_at,
            message: any_of(&image),
            metadata: any_of(&CreateImageMetadata { image_id: image.id.clone() }),
            id: image.id,
            name: image.name,
            labels: image.labels,
        }
    }
}

impl From<google::Image> for Found {
    fn from(image: google::Image) -> Self {
        let about = google::Operation {
            target_id: image.id,
            target_link: image.self_link.clone(),
            ..google::Operation::default()
        };
        Self {
            id: image.id().to_string(),
            name: image.name().to_owned(),
            status: image.status().to_owned(),
            created_at: image.creation_timestamp().parse().ok(),
            message: any_of(&image),
            metadata: any_of(&about),
            labels: image.labels,
        }
    }
}

/// The identifier of the Image that an operation is about.
pub(crate) fn id_of_image(operation: &Operation) -> Option<String> {
    if let Some(CreateImageMetadata { image_id }) = operation.metadata_as() {
        return Some(image_id);
    }
    operation.metadata_as::<google::Operation>()?.target_id.map(|id| id.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// Google's own answers to a caller that may make Images, and not look at them.
    fn service() -> String {
        const DONE: &str = r#"{"name":"operation-1","operationType":"insert","status":"DONE","targetId":"99","targetLink":"https://h/images/web"}"#;
        const NO: &str = r#"{"error":{"code":403,"message":"Required 'compute.images.get' permission"}}"#;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, mut head) = (stream.unwrap(), [0; 4096]);
                let len = stream.read(&mut head).unwrap();
                let is_image = String::from_utf8_lossy(&head[..len]).contains("/images/");
                let (status, body) = if is_image { ("403 Forbidden", NO) } else { ("200 OK", DONE) };
                let head =
                    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}", body.len());
                write!(stream, "{head}\r\n\r\n{body}").unwrap();
            }
        });
        endpoint
    }

    #[tokio::test]
    async fn an_image_that_may_not_be_looked_at_is_made_all_the_same() {
        let client = Client::new(&service(), None).unwrap();
        let images = Images::Google(ComputeEngine::new(client, "p"));
        let operation = images.operation("operation-1", &CancellationToken::new()).await.unwrap();
        assert_eq!(operation.outcome(), OperationOutcome::Succeeded(None));
        assert_eq!(id_of_image(&operation).as_deref(), Some("99"));
    }
}

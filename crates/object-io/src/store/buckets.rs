//! Verbs of buckets themselves.

use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};
use tokio_util::sync::CancellationToken;

use super::Store;
use crate::{ObjectError, Verb};

/// The region that buckets of AWS are in unless another one is named, and that must not be named.
const UNNAMED_REGION: &str = "us-east-1";

impl Store {
    /// Fails unless the bucket is there and ours to read.
    ///
    /// # Errors
    ///
    /// [`ObjectError::NoSuchBucket`] if it is not there.
    pub async fn head_bucket(&self, bucket: &str, cancel: &CancellationToken) -> Result<(), ObjectError> {
        let request = self.0.client.head_bucket().bucket(bucket);
        self.ask(Verb::HeadBucket, &self.place(bucket, ""), cancel, || request.clone().send()).await.map(drop)
    }

    /// Creates a bucket. That it is ours already is no error.
    ///
    /// # Errors
    ///
    /// [`ObjectError::BucketTaken`] if it is somebody else's.
    pub async fn create_bucket(&self, bucket: &str, cancel: &CancellationToken) -> Result<(), ObjectError> {
        let request = self.0.client.create_bucket().bucket(bucket);
        // Only AWS wants the region repeated here; other stores take it for a name they do not have.
        let named = self.0.endpoint.is_none() && &*self.0.region != UNNAMED_REGION;
        let location = named.then(|| {
            let region = BucketLocationConstraint::from(&*self.0.region);
            CreateBucketConfiguration::builder().location_constraint(region).build()
        });
        let request = request.set_create_bucket_configuration(location);
        match self.ask(Verb::CreateBucket, &self.place(bucket, ""), cancel, || request.clone().send()).await {
            Err(ObjectError::Refused { source, .. })
                if source.code.as_deref() == Some("BucketAlreadyOwnedByYou") =>
            {
                Ok(())
            }
            answer => answer.map(drop),
        }
    }

    /// Creates the bucket unless it is there.
    ///
    /// # Errors
    ///
    /// As the two verbs it is made of.
    pub async fn create_bucket_if_missing(
        &self,
        bucket: &str,
        cancel: &CancellationToken,
    ) -> Result<(), ObjectError> {
        match self.head_bucket(bucket, cancel).await {
            Err(ObjectError::NoSuchBucket { .. }) => self.create_bucket(bucket, cancel).await,
            answer => answer,
        }
    }
}

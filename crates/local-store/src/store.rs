//! The store: its buckets, and the verbs on them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use s3s::dto::{
    BucketLocationConstraint, CreateBucketInput, CreateBucketOutput, GetBucketLocationOutput,
    HeadBucketOutput, ListBucketsInput, ListBucketsOutput,
};
use s3s::{S3Result, s3_error};
use tokio_util::sync::CancellationToken;

use crate::bucket::{Bucket, children};
use crate::error::Error;
use crate::errors::{internal, join, no_such_bucket};
use crate::folder::Folder;
use crate::records::{BucketRecord, Moment};

/// The region that S3 calls by no name in GetBucketLocation.
const NAMELESS_REGION: &str = "us-east-1";

/// An S3 store over a folder: [`s3s::S3`] without a server and without authentication.
/// [`serve`](crate::serve) adds both.
///
/// Cheap to clone; the folder is let go when the last clone is dropped.
#[derive(Clone)]
pub struct LocalStore(Arc<Shared>);

struct Shared {
    folder: Arc<Folder>,
    region: String,
    buckets: RwLock<BTreeMap<String, Arc<Bucket>>>,
}

impl std::fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalStore").field("region", &self.0.region).finish_non_exhaustive()
    }
}

impl LocalStore {
    /// Takes the folder for this process, creates it where it is missing, removes what a kill left behind,
    /// and reads all records. Blocks.
    ///
    /// # Errors
    /// [`Error::Locked`] while another process has the folder; and where the file system refuses, or a record
    /// is broken.
    pub fn open(dir: &Path, region: &str) -> Result<Self, Error> {
        let folder = Arc::new(Folder::open(dir)?);
        let mut buckets = BTreeMap::new();
        for path in children(&folder.buckets())? {
            // Only names that bucket names may have are ever made here.
            let Some(name) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else {
                continue;
            };
            buckets.insert(name.clone(), Arc::new(Bucket::open(&folder, path, name)?));
        }
        Ok(Self(Arc::new(Shared { folder, region: region.to_owned(), buckets: RwLock::new(buckets) })))
    }

    /// Cancelled when the folder's lock is given back.
    pub(crate) fn released(&self) -> CancellationToken {
        self.0.folder.released()
    }

    pub(crate) fn bucket(&self, name: &str) -> S3Result<Arc<Bucket>> {
        let buckets = self.0.buckets.read().unwrap_or_else(PoisonError::into_inner);
        buckets.get(name).cloned().ok_or_else(no_such_bucket)
    }

    pub(crate) async fn make_bucket(&self, input: CreateBucketInput) -> S3Result<CreateBucketOutput> {
        let wanted = input.create_bucket_configuration.and_then(|config| config.location_constraint);
        if let Some(wanted) = wanted.filter(|wanted| wanted.as_str() != self.0.region) {
            let (wanted, region) = (wanted.as_str(), &self.0.region);
            return Err(s3_error!(
                IllegalLocationConstraintException,
                "The {wanted} location constraint is incompatible for the region specific endpoint this request \
                 was sent to ({region})."
            ));
        }
        if input.object_lock_enabled_for_bucket == Some(true) {
            return Err(s3_error!(NotImplemented, "object lock is not implemented"));
        }
        let (store, name) = (self.clone(), input.bucket);
        let location = Some(format!("/{name}"));
        blocking(move || {
            let mut buckets = store.0.buckets.write().unwrap_or_else(PoisonError::into_inner);
            if buckets.contains_key(&name) {
                let message =
                    "Your previous request to create the named bucket succeeded and you already own it.";
                return Err(s3_error!(BucketAlreadyOwnedByYou, "{message}"));
            }
            let path = store.0.folder.buckets().join(&name);
            let record = BucketRecord { created: Moment::now() };
            let bucket = Bucket::create(&store.0.folder, path, name.clone(), record).map_err(internal)?;
            buckets.insert(name, Arc::new(bucket));
            Ok(())
        })
        .await?;
        Ok(CreateBucketOutput { location })
    }

    pub(crate) async fn remove_bucket(&self, name: String) -> S3Result<()> {
        let (store, bucket) = (self.clone(), self.bucket(&name)?);
        blocking(move || {
            let mut buckets = store.0.buckets.write().unwrap_or_else(PoisonError::into_inner);
            if !bucket.delete()? {
                return Err(s3_error!(BucketNotEmpty, "The bucket you tried to delete is not empty"));
            }
            buckets.remove(&name);
            Ok(())
        })
        .await
    }

    pub(crate) fn describe_bucket(&self, name: &str) -> S3Result<HeadBucketOutput> {
        self.bucket(name)?;
        Ok(HeadBucketOutput { bucket_region: Some(self.0.region.clone()), ..Default::default() })
    }

    pub(crate) fn locate_bucket(&self, name: &str) -> S3Result<GetBucketLocationOutput> {
        self.bucket(name)?;
        let named = (self.0.region != NAMELESS_REGION).then(|| self.0.region.clone());
        Ok(GetBucketLocationOutput { location_constraint: named.map(BucketLocationConstraint::from) })
    }

    pub(crate) fn list_buckets(&self, input: &ListBucketsInput) -> ListBucketsOutput {
        let prefix = input.prefix.as_deref().unwrap_or_default();
        let after = input.continuation_token.as_deref().unwrap_or_default();
        let page = input.max_buckets.and_then(|max| usize::try_from(max).ok()).unwrap_or(usize::MAX).max(1);
        let buckets = self.0.buckets.read().unwrap_or_else(PoisonError::into_inner);
        let mut found =
            buckets.values().filter(|bucket| bucket.name.starts_with(prefix) && bucket.name.as_str() > after);
        let listed: Vec<_> = found
            .by_ref()
            .take(page)
            .map(|bucket| s3s::dto::Bucket {
                name: Some(bucket.name.clone()),
                creation_date: Some(bucket.record.created.timestamp()),
                bucket_region: Some(self.0.region.clone()),
            })
            .collect();
        let more = found.next().is_some();
        ListBucketsOutput {
            continuation_token: listed.last().filter(|_| more).and_then(|last| last.name.clone()),
            buckets: Some(listed),
            owner: None,
            prefix: input.prefix.clone(),
        }
    }
}

/// Runs what touches the disk where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> S3Result<T> + Send + 'static,
) -> S3Result<T> {
    tokio::task::spawn_blocking(job).await.map_err(join)?
}

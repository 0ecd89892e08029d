//! Who may do what.
//!
//! There are four levels, each with all before it: read, use as a source, write, administer. A role gives one, by its
//! last word: `viewer` or `auditor` reads, `user` uses, `editor` writes, `admin` administers, of the primitive roles and
//! of those of `compute.` and `compute.images.`; any other role is stored in a binding and gives nothing here. Rights
//! come from the grants that the operator configures, for one folder or for all, and from the access bindings of an
//! image, for that image. There is no hierarchy of clouds and no groups: those are the business of an IAM service.
//!
//! Static tokens, and callers of an open server, may do everything. What one may not read is not there: NOT_FOUND, with
//! the same words. What one may read and not change is PERMISSION_DENIED.

use std::str::FromStr;

use image_api::{Code, Image, access::AccessBinding, rpc::Status};

use super::{Caller, Refusal, Service};
use crate::{
    catalog::{CatalogError, SeenOperation},
    limits,
};

/// What may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Right {
    Read,
    Use,
    Write,
    Administer,
}

impl Right {
    /// What a role gives.
    fn of_role(role: &str) -> Option<Self> {
        let word =
            role.strip_prefix("compute.images.").or_else(|| role.strip_prefix("compute.")).unwrap_or(role);
        match word {
            "viewer" | "auditor" => Some(Self::Read),
            "user" => Some(Self::Use),
            "editor" => Some(Self::Write),
            "admin" => Some(Self::Administer),
            _ => None,
        }
    }
}

/// A role of a service account in a folder, or in all: `ACCOUNT=ROLE` or `ACCOUNT=ROLE@FOLDER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    account_id: String,
    right: Right,
    folder_id: Option<String>,
}

/// Text that is no [`Grant`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected ACCOUNT=ROLE or ACCOUNT=ROLE@FOLDER, where ROLE is viewer, user, editor or admin")]
pub struct GrantError;

impl FromStr for Grant {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Self, GrantError> {
        let (account, rest) = text.split_once('=').ok_or(GrantError)?;
        let (role, folder) = rest.split_once('@').map_or((rest, None), |(role, folder)| (role, Some(folder)));
        let right = Right::of_role(role).ok_or(GrantError)?;
        if account.is_empty() || folder == Some("") {
            return Err(GrantError);
        }
        Ok(Self { account_id: account.to_owned(), right, folder_id: folder.map(str::to_owned) })
    }
}

/// The grants of the operator.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rights(pub(crate) Vec<Grant>);

impl Rights {
    /// The highest right of a caller in a folder; of `None` in all folders.
    fn in_folder(&self, caller: &Caller, folder_id: Option<&str>) -> Option<Right> {
        let account = match caller {
            Caller::Nobody => return None,
            Caller::Local | Caller::Token(_) => return Some(Right::Administer),
            Caller::Account(id) => id,
        };
        let applies = |grant: &&Grant| {
            grant.account_id == *account
                && (grant.folder_id.is_none() || grant.folder_id.as_deref() == folder_id)
        };
        self.0.iter().filter(applies).map(|grant| grant.right).max()
    }
}

/// The highest right that bindings give a caller. `allUsers` are those who show a token: nobody else gets that far.
fn of_bindings(caller: &Caller, bindings: &[AccessBinding]) -> Option<Right> {
    let Caller::Account(account) = caller else { return None };
    let is_meant = |binding: &&AccessBinding| {
        binding.subject.as_ref().is_some_and(|subject| match subject.r#type.as_str() {
            "system" => matches!(subject.id.as_str(), "allUsers" | "allAuthenticatedUsers"),
            "serviceAccount" => subject.id == *account,
            _ => false,
        })
    };
    bindings.iter().filter(is_meant).filter_map(|binding| Right::of_role(&binding.role_id)).max()
}

impl Service {
    /// Refuses what the caller may not do in a folder.
    pub(super) fn check_folder(
        &self,
        caller: &Caller,
        folder_id: &str,
        needed: Right,
    ) -> Result<(), Refusal> {
        let has = self.rights.in_folder(caller, Some(folder_id));
        if has >= Some(needed) { Ok(()) } else { Err(denied(&format!("folder {folder_id}"))) }
    }

    /// Whether the caller may do that in all folders.
    pub(super) fn may_everywhere(&self, caller: &Caller, needed: Right) -> bool {
        self.rights.in_folder(caller, None) >= Some(needed)
    }

    /// The image, if the caller may do that with it.
    pub(super) async fn image_for(&self, caller: &Caller, id: &str, needed: Right) -> Result<Image, Refusal> {
        let image = self.catalog.image(id).await?;
        self.check_image(caller, &image, needed).await?;
        Ok(image)
    }

    /// Refuses what the caller may not do with an image.
    pub(super) async fn check_image(
        &self,
        caller: &Caller,
        image: &Image,
        needed: Right,
    ) -> Result<(), Refusal> {
        let (has, id) = (self.of_image(caller, image).await?, &image.id);
        if has >= Some(needed) {
            Ok(())
        } else if has.is_some() {
            Err(denied(&format!("image {id}")))
        } else {
            Err(CatalogError::NoImage { id: id.clone() }.into())
        }
    }

    /// Whether the caller may see an image.
    pub(super) async fn may_read(&self, caller: &Caller, image: &Image) -> Result<bool, Refusal> {
        Ok(self.of_image(caller, image).await?.is_some())
    }

    /// Refuses what the caller may not do with an operation. Whoever began it may do everything, also when its image is gone;
    /// others what they may do with the image, or in its folder where it is gone.
    pub(super) async fn check_operation(
        &self,
        caller: &Caller,
        operation: &SeenOperation,
        needed: Right,
    ) -> Result<(), Refusal> {
        if operation.message.created_by == caller.name() {
            return Ok(());
        }
        let has = match self.catalog.image(&operation.image_id).await {
            Ok(image) => self.of_image(caller, &image).await?,
            // Operations that older servers have left know no folder: of them only grants for all folders tell.
            Err(CatalogError::NoImage { .. }) => {
                self.rights.in_folder(caller, Some(&operation.about.folder_id))
            }
            Err(error) => return Err(error.into()),
        };
        let id = &operation.message.id;
        if has >= Some(needed) {
            Ok(())
        } else if has.is_some() {
            Err(denied(&format!("operation {id}")))
        } else {
            Err(CatalogError::NoOperation { id: id.clone() }.into())
        }
    }

    async fn of_image(&self, caller: &Caller, image: &Image) -> Result<Option<Right>, Refusal> {
        let in_folder = self.rights.in_folder(caller, Some(&image.folder_id));
        if in_folder == Some(Right::Administer) {
            return Ok(in_folder);
        }
        let limit = i64::try_from(limits::ACCESS_BINDINGS).unwrap_or(i64::MAX);
        let bindings = self.catalog.bindings(&image.id, 0, limit).await?;
        Ok(in_folder.max(of_bindings(caller, &bindings)))
    }
}

fn denied(what: &str) -> Refusal {
    Status::new(Code::PermissionDenied, format!("permission denied for {what}")).into()
}

#[cfg(test)]
mod tests {
    use image_api::access::Subject;

    use super::*;

    #[test]
    fn grants() {
        let rights = Rights(vec![
            "sa1=viewer".parse().unwrap(),
            "sa1=editor@f1".parse().unwrap(),
            "sa2=compute.images.user@f2".parse().unwrap(),
        ]);
        let of = |account: &str, folder| rights.in_folder(&Caller::Account(account.to_owned()), folder);
        assert_eq!(of("sa1", Some("f1")), Some(Right::Write));
        assert_eq!(of("sa1", Some("f2")), Some(Right::Read));
        assert_eq!(of("sa1", None), Some(Right::Read));
        assert_eq!(of("sa2", Some("f2")), Some(Right::Use));
        assert_eq!((of("sa2", Some("f1")), of("sa2", None), of("sa3", Some("f1"))), (None, None, None));
        assert_eq!(rights.in_folder(&Caller::Token(1), Some("f9")), Some(Right::Administer));
        assert_eq!(rights.in_folder(&Caller::Nobody, Some("f1")), None);
        for wrong in ["", "sa1", "sa1=", "=viewer", "sa1=owner", "sa1=viewer@"] {
            assert_eq!(wrong.parse::<Grant>(), Err(GrantError), "{wrong}");
        }
    }

    #[test]
    fn bindings() {
        let binding = |role: &str, r#type: &str, id: &str| AccessBinding {
            role_id: role.to_owned(),
            subject: Some(Subject { id: id.to_owned(), r#type: r#type.to_owned() }),
        };
        let all = [
            binding("compute.images.user", "system", "allAuthenticatedUsers"),
            binding("admin", "userAccount", "sa1"),
            binding("compute.editor", "serviceAccount", "sa1"),
            binding("storage.admin", "serviceAccount", "sa2"),
        ];
        let of = |account: &str| of_bindings(&Caller::Account(account.to_owned()), &all);
        assert_eq!((of("sa1"), of("sa2")), (Some(Right::Write), Some(Right::Use)));
        assert_eq!(of_bindings(&Caller::Nobody, &all), None);
    }
}

//! Folders of the user, by the XDG Base Directory Specification.

use std::env;
use std::path::{Path, PathBuf};

/// `image-prep` in the folder that `variable` names, or else in `beneath_home`; `None` without a home. A relative path in the variable is
/// ignored.
pub(crate) fn of_user(variable: &str, beneath_home: &str) -> Option<PathBuf> {
    let named = env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || {
        env::var_os("HOME").filter(|home| !home.is_empty()).map(|home| Path::new(&home).join(beneath_home))
    };
    Some(named.or_else(home)?.join("image-prep"))
}

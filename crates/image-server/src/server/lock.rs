//! One server to a folder.

use std::{
    fs::{File, TryLockError},
    path::Path,
};

use crate::ServerError;

/// The lock on a folder. The system releases it when the process ends, however it ends.
pub(crate) struct DirLock {
    _file: File,
}

impl DirLock {
    pub(crate) fn take(dir: &Path) -> Result<Self, ServerError> {
        let path = dir.join("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(ServerError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(ServerError::Locked { dir: dir.to_owned() }),
            Err(TryLockError::Error(source)) => Err(ServerError::io("lock", &path)(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirLock::take(dir.path()).unwrap();
        assert!(matches!(DirLock::take(dir.path()), Err(ServerError::Locked { .. })));
        drop(first);
        DirLock::take(dir.path()).unwrap();
    }
}

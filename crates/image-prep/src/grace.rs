//! The time that an interrupted command has to undo what it did, and the share of it for each step that must not be cut off.

use std::time::Duration;

/// From the first Ctrl-C or SIGTERM to the end of the process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grace(pub(crate) Duration);

impl Grace {
    /// For the command. The rest is for the process to end.
    pub(crate) fn command(self) -> Duration {
        self.0 * 9 / 10
    }

    /// For a Create call that is under way: without its answer the operation could not be cancelled.
    pub(crate) fn create_call(self) -> Duration {
        self.0 / 4
    }

    /// For an operation to be cancelled.
    pub(crate) fn cancel_operation(self) -> Duration {
        self.0 * 3 / 10
    }

    /// For an upload to be aborted.
    pub(crate) fn abort_upload(self) -> Duration {
        self.0 * 7 / 10
    }

    /// For an object to be deleted.
    pub(crate) fn delete_object(self) -> Duration {
        self.0 * 3 / 20
    }

    /// For an Image that was set aside to get its name back, and for one that was replaced to be deleted.
    pub(crate) fn rename(self) -> Duration {
        self.0 / 5
    }

    /// For the servers of `--local` to end what they are busy with. The next start takes up the rest.
    pub(crate) fn local_servers(self) -> Duration {
        self.0 / 8
    }
}

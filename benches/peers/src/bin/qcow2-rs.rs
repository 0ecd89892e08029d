//! `peer-qcow2-rs IMAGE RAW`: a qcow2 (plain or zlib) to raw with qcow2-rs, on one thread.
//!
//! Its devices are not `Sync`, and it names no holes: one thread reads everything. Plain system calls are its quickest way of
//! reading without io_uring.

use anyhow::{Result, anyhow};
use peers::{CHUNK, Paths, write_sparse};
use qcow2_rs::dev::Qcow2DevParams;
use qcow2_rs::helpers::Qcow2IoBuf;
use qcow2_rs::utils::qcow2_setup_dev_sync;

fn main() -> Result<()> {
    let paths = Paths::from_arguments()?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let parameters = Qcow2DevParams::new(9, None, None, true, false);
    let device = qcow2_setup_dev_sync(&paths.image, &parameters).map_err(|error| anyhow!("{error:?}"))?;
    let len = device.info.virtual_size();
    let raw = paths.create_raw(len)?;
    runtime.block_on(async {
        device.qcow2_prep_io().await.map_err(|error| anyhow!("{error:?}"))?;
        let mut buffer = Qcow2IoBuf::<u8>::new(CHUNK);
        for offset in (0..len).step_by(CHUNK) {
            let wanted = usize::try_from((len - offset).min(CHUNK as u64))?;
            let bytes = &mut buffer[..wanted];
            device.read_at(bytes, offset).await.map_err(|error| anyhow!("{error:?}"))?;
            write_sparse(&raw, bytes, offset)?;
        }
        Ok(())
    })
}

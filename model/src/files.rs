//! Files that are whole or absent, and no longer than expected.

use crate::error::at;
use std::fs::File;
use std::io::Result;
use std::path::Path;

/// Lets `write` fill a temporary file beside `path`, makes sure it is on the disk, and renames it to `path`: after a crash
/// there is the whole file, the one before it, or none.
///
/// # Errors
/// Those of the file system; nothing is left behind then.
pub fn write_atomically(path: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".tmp-");
    // Temporary files are private by default; this one becomes an ordinary one, as readable as the umask allows.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder)?;
    write(file.as_file_mut())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    // The rename itself is on the disk once the folder is.
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(())
}

/// The content of a file of at most `most` bytes.
///
/// # Errors
/// Names the file.
pub(crate) fn read_up_to(path: &Path, most: u64) -> crate::error::Result<Vec<u8>> {
    let length = std::fs::metadata(path).map_err(at(path))?.len();
    if length > most {
        return Err(at(path)(format!("{length} bytes, at most {most} are read")));
    }
    std::fs::read(path).map_err(at(path))
}

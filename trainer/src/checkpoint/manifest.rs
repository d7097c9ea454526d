//! What a checkpoint consists of, with sizes and hashes: written last, so that a folder with a manifest that fits is whole.

use crate::run_folder::MAX_FILE;
use anyhow::{Context, Result, bail, ensure};
use model::{open_file, read_file};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

const NAME: &str = "manifest.json";

/// Every file by its path in the folder, with `/` between the parts.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    files: BTreeMap<String, Fingerprint>,
}

/// A file's size and hash.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fingerprint {
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

/// Makes sure that all files in `folder` are on the disk, and writes down what they are.
pub(super) fn seal(folder: &Path) -> Result<()> {
    let mut files = BTreeMap::new();
    for (name, path) in files_in(folder)? {
        let file = File::open(&path).with_context(|| path.display().to_string())?;
        file.sync_all().with_context(|| format!("{}: cannot be brought to the disk", path.display()))?;
        files.insert(name, fingerprint(file).with_context(|| path.display().to_string())?);
    }
    let json = serde_json::to_vec_pretty(&Manifest { files })?;
    crate::run_folder::write_whole(&folder.join(NAME), &json)
}

/// Fails unless every file of the manifest in `folder` is there as it was written.
///
/// # Errors
/// Names the first file that is not.
pub(super) fn verify(folder: &Path) -> Result<()> {
    let path = folder.join(NAME);
    let text = read_file(&path, MAX_FILE).with_context(|| path.display().to_string())?;
    let manifest: Manifest =
        serde_json::from_slice(&text).with_context(|| format!("{}: not a manifest", path.display()))?;
    let here: BTreeMap<String, PathBuf> = files_in(folder)?.into_iter().collect();
    for (name, expected) in &manifest.files {
        // Only what was found in the folder is opened: a name in a manifest leads nowhere else.
        let Some(path) = here.get(name) else {
            bail!("{}: missing", folder.join(name).display());
        };
        let found = open_file(path).and_then(fingerprint);
        let found = found.with_context(|| path.display().to_string())?;
        ensure!(
            found == *expected,
            "{}: {} bytes, not the {} that were written, or altered since",
            path.display(),
            found.bytes,
            expected.bytes
        );
    }
    Ok(())
}

pub(super) fn fingerprint(mut file: File) -> io::Result<Fingerprint> {
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hash.update(&buffer[..read]);
        bytes += read as u64;
    }
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Fingerprint { bytes, sha256 })
}

/// All files in a folder and those below it but the manifest, by name.
fn files_in(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    let mut folders = vec![(String::new(), folder.to_owned())];
    while let Some((prefix, folder)) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        for entry in entries {
            let entry = entry.with_context(|| folder.display().to_string())?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            match entry.file_type()?.is_dir() {
                true => folders.push((format!("{name}/"), entry.path())),
                false if name == NAME => {}
                false => found.push((name, entry.path())),
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sealed() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("state")).unwrap();
        fs::write(folder.path().join("a.json"), "{}").unwrap();
        fs::write(folder.path().join("state/b.bin"), [7; 1000]).unwrap();
        seal(folder.path()).unwrap();
        folder
    }

    #[test]
    fn a_sealed_folder_is_whole_until_a_byte_changes_or_a_file_goes() {
        let folder = sealed();
        verify(folder.path()).unwrap();
        let file = folder.path().join("state/b.bin");
        let mut bytes = fs::read(&file).unwrap();
        bytes[500] ^= 1;
        fs::write(&file, &bytes).unwrap();
        let text = verify(folder.path()).unwrap_err().to_string();
        assert!(text.contains("state/b.bin: 1000 bytes") && text.contains("altered"), "{text}");
        fs::remove_file(&file).unwrap();
        let text = verify(folder.path()).unwrap_err().to_string();
        assert!(text.ends_with("state/b.bin: missing"), "{text}");
    }

    #[test]
    fn a_manifest_cannot_lead_out_of_its_folder() {
        let folder = sealed();
        let secret = tempfile::NamedTempFile::new_in(folder.path().parent().unwrap()).unwrap();
        let name = format!("../{}", secret.path().file_name().unwrap().to_string_lossy());
        let text = format!(r#"{{"files": {{{name:?}: {{"bytes": 0, "sha256": ""}}}}}}"#);
        fs::write(folder.path().join(NAME), text).unwrap();
        assert!(verify(folder.path()).unwrap_err().to_string().ends_with("missing"));
    }

    proptest! {
        #[test]
        fn any_bytes_in_place_of_a_manifest_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let folder = sealed();
            fs::write(folder.path().join(NAME), &bytes).unwrap();
            prop_assert!(verify(folder.path()).is_err());
        }
    }
}

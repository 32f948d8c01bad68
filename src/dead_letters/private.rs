//! Files and folders that only their owner may read: what is written there names users.
//!
//! Their modes hold whatever the umask is, and nothing is written through a symbolic link that
//! somebody else may have put there.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A file's mode: read and written by its owner.
const FILE_MODE: u32 = 0o600;
/// A folder's mode, likewise.
const FOLDER_MODE: u32 = 0o700;
/// The bits that give others anything.
const OTHERS: u32 = 0o077;
/// What begins the name of a folder to edit in.
const FOLDER_PREFIX: &str = "rename-request-";
/// The file in it that is locked for as long as its owner lives.
const LOCK: &str = "lock";

/// A file that is open, and the mode it had if that let others read it.
#[derive(Debug)]
pub(super) struct OpenedFile {
    pub(super) file: File,
    pub(super) was_open_to_others: Option<u32>,
}

/// Makes a new file; fails where anything has that name, be it a link to nowhere.
pub(super) fn create_new(path: &Path) -> io::Result<File> {
    let file = options().create_new(true).open(path)?;
    // The umask may have taken more than it should.
    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    Ok(file)
}

/// Opens a file that is there, to add to its end, and takes from others what its mode lets them do.
pub(super) fn open_to_append(path: &Path) -> io::Result<OpenedFile> {
    let opened = open_as_it_is(path)?;
    if opened.was_open_to_others.is_some() {
        let closed = Permissions::from_mode(FILE_MODE);
        opened.file.set_permissions(closed)?;
    }
    Ok(opened)
}

/// Whether that can be done; changes nothing.
pub(super) fn can_be_appended_to(path: &Path) -> io::Result<()> {
    open_as_it_is(path).map(drop)
}

fn open_as_it_is(path: &Path) -> io::Result<OpenedFile> {
    let file = options().open(path).map_err(|error| named(error, path))?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    if metadata.uid() != our_uid(path)? {
        return Err(io::Error::other(
            "it belongs to another user, who could read what is written; name another file",
        ));
    }
    let mode = metadata.mode() & 0o7777;
    Ok(OpenedFile {
        file,
        was_open_to_others: (mode & OTHERS != 0).then_some(mode),
    })
}

/// The same, or a new file where there is none.
pub(super) fn open_or_create(path: &Path) -> io::Result<OpenedFile> {
    match open_to_append(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(OpenedFile {
            file: create_new(path)?,
            was_open_to_others: None,
        }),
        opened => opened,
    }
}

/// Writes a file, whole or not at all: beside it first, in `draft`. Returns once the disk has it.
pub(super) fn replace(path: &Path, draft: &Path, content: &[u8]) -> io::Result<()> {
    // One that a killed run left, or a link: only the name is removed.
    match fs::remove_file(draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = create_new(draft)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(draft, path)?;
    sync_folder(path)
}

/// Opens a file to read it, unless it is a link.
pub(super) fn open_to_read(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| named(error, path))?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("it is no regular file"))
    }
}

/// Makes the disk keep the file's name as well: it may be new.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

/// Whether a file can be made in that folder; leaves none.
pub(super) fn can_be_made(path: &Path) -> io::Result<()> {
    tempfile::tempfile_in(folder_of(path)).map(drop)
}

/// A folder for one file that a person edits, and for whatever their editor leaves beside it. All
/// of it goes when this is dropped; what a killed process left goes when the next one is made.
#[derive(Debug)]
pub struct EditFolder {
    folder: TempDir,
    /// Locked until the process ends, however it ends.
    _lock: File,
}

impl EditFolder {
    /// Makes one among the temporary files.
    pub fn new() -> io::Result<Self> {
        Self::within(&std::env::temp_dir())
    }

    fn within(parent: &Path) -> io::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix(FOLDER_PREFIX)
            .permissions(Permissions::from_mode(FOLDER_MODE))
            .tempdir_in(parent)?;
        fs::set_permissions(folder.path(), Permissions::from_mode(FOLDER_MODE))?;
        let lock = create_new(&folder.path().join(LOCK))?;
        lock.try_lock()?;
        let made = Self {
            folder,
            _lock: lock,
        };
        made.remove_abandoned(parent);
        Ok(made)
    }

    /// Writes the file that is to be edited; its path.
    pub fn write(&self, content: &str) -> io::Result<PathBuf> {
        let path = self.folder.path().join("request.json");
        create_new(&path)?.write_all(content.as_bytes())?;
        Ok(path)
    }

    /// Removes folders like this one whose process is gone. What cannot be removed stays: it is
    /// somebody else's, or the next run's.
    fn remove_abandoned(&self, parent: &Path) {
        let Ok(entries) = fs::read_dir(parent) else {
            return;
        };
        for entry in entries.flatten() {
            let is_alike = entry
                .file_name()
                .to_string_lossy()
                .starts_with(FOLDER_PREFIX);
            if is_alike && entry.path() != self.folder.path() && is_abandoned(&entry.path()) {
                fs::remove_dir_all(entry.path()).ok();
            }
        }
    }
}

/// Whether nobody holds the folder's lock. One without a lock may just be made.
fn is_abandoned(folder: &Path) -> bool {
    let is_folder = fs::symlink_metadata(folder).is_ok_and(|found| found.is_dir());
    is_folder && open_to_read(&folder.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok())
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .append(true)
        .mode(FILE_MODE)
        // Not to wait for the other end of what turns out to be a pipe.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options
}

/// The system's own words for a link are about levels of them.
fn named(error: io::Error, path: &Path) -> io::Error {
    let is_link = path
        .symlink_metadata()
        .is_ok_and(|found| found.is_symlink());
    if is_link {
        io::Error::other("it is a symbolic link; name the file itself")
    } else {
        error
    }
}

/// Who we are where files are made, as the file system sees it.
fn our_uid(path: &Path) -> io::Result<u32> {
    Ok(tempfile::tempfile_in(folder_of(path))?.metadata()?.uid())
}

fn folder_of(path: &Path) -> &Path {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_new_file_is_its_owner_s_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new");
        create_new(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        create_new(&path).unwrap_err();
    }

    #[test]
    fn a_file_that_others_may_read_is_closed_to_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old");
        for wide in [0o604, 0o640, 0o666, 0o644] {
            fs::write(&path, "as it was").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(wide)).unwrap();
            can_be_appended_to(&path).unwrap();
            assert_eq!(mode(&path), wide);
            let opened = open_or_create(&path).unwrap();
            assert_eq!(opened.was_open_to_others, Some(wide));
            assert_eq!(mode(&path), 0o600);
            assert_eq!(open_to_append(&path).unwrap().was_open_to_others, None);
            assert_eq!(fs::read_to_string(&path).unwrap(), "as it was");
        }
    }

    #[test]
    fn nothing_is_written_through_a_link_nor_into_what_is_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        let (link, dangling) = (folder.path().join("link"), folder.path().join("dangling"));
        fs::write(&target, "precious").unwrap();
        symlink(&target, &link).unwrap();
        symlink(folder.path().join("nowhere"), &dangling).unwrap();
        for link in [&link, &dangling] {
            let refused = open_or_create(link).unwrap_err().to_string();
            assert!(refused.contains("symbolic link"), "{refused}");
            create_new(link).unwrap_err();
            open_to_read(link).unwrap_err();
        }
        open_or_create(folder.path()).unwrap_err();
        open_or_create(Path::new("/dev/null")).unwrap_err();
        // A draft's name is taken from the link, and what it led to stays.
        let path = folder.path().join("whole");
        replace(&path, &link, b"new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
        assert!(!folder.path().join("nowhere").exists());
    }

    #[test]
    fn a_folder_to_edit_in_goes_whole_and_takes_abandoned_ones_with_it() {
        let parent = tempfile::tempdir().unwrap();
        let count = || fs::read_dir(parent.path()).unwrap().count();
        let one = EditFolder::within(parent.path()).unwrap();
        let path = one.write("{}").unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        fs::write(path.with_extension("json~"), "backup").unwrap();
        // Another review's is in use, a killed one's is not; one without a lock is just being made.
        let killed = EditFolder::within(parent.path()).unwrap();
        let EditFolder {
            folder,
            _lock: lock,
        } = killed;
        let left = folder.keep();
        drop(lock);
        fs::create_dir(parent.path().join("rename-request-new")).unwrap();
        assert_eq!(count(), 3);
        let next = EditFolder::within(parent.path()).unwrap();
        assert!(!left.exists() && path.exists());
        drop(one);
        assert!(!path.parent().unwrap().exists());
        drop(next);
        assert_eq!(count(), 1);
    }
}

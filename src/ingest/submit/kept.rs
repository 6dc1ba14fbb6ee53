//! A message that is kept until the service has it: whoever writes it may take hours, and the
//! service may be restarted meanwhile, or while it reads.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::libc::{EINVAL, EISDIR, EOPNOTSUPP, O_TMPFILE};

use crate::ingest::lines::{Lines, Mend};
use crate::ingest::sendmail::Invocation;
use crate::ingest::submission::{Input, SubmitError};
use crate::spool::AcceptError;

/// Octets that are kept in memory; what is longer goes into a file.
const IN_MEMORY: usize = 1 << 20;

/// Octets that are told from a message at most before it is judged by its limit: `Bcc:` and the
/// like. What is near the limit is for the service to judge.
const LEFT_OUT: u64 = 1 << 20;

/// Octets that are read out of it at once.
const PIECE: usize = 64 * 1024;

/// A message as it was written, whole.
#[derive(Debug, Default)]
pub struct Kept {
    /// What is not in the file.
    octets: Vec<u8>,
    file: Option<File>,
    /// No file can be had there: then memory has to do.
    without_file: bool,
}

impl Kept {
    /// Reads to the end of the input, or to the lone dot that ends it. What does not fit into
    /// memory is kept in an unnamed file in `folder`, which nobody finds if this process dies.
    ///
    /// # Errors
    /// [`SubmitError`], where the input or the file fails, or it is over the `limit` in octets.
    pub async fn read(
        input: &mut dyn Input,
        invocation: &Invocation,
        limit: Option<u64>,
        folder: &Path,
    ) -> Result<Self, SubmitError> {
        let mut kept = Self::default();
        let mut lines = Lines::new(Mend::ALL, invocation.dot_ends_input);
        let (mut mended, mut size) = (Vec::new(), 0);
        while !lines.ended() {
            let piece = input.next().await?;
            if piece.is_empty() {
                break;
            }
            lines.push(&piece, b" ", &mut mended);
            size += mended.len() as u64;
            mended.clear();
            if let Some(limit) = limit.filter(|limit| size > limit.saturating_add(LEFT_OUT)) {
                return Err(AcceptError::TooLarge(limit).into());
            }
            kept.add(&piece, folder).map_err(|error| SubmitError::Keep(folder.to_owned(), error))?;
        }
        Ok(kept)
    }

    fn add(&mut self, piece: &[u8], folder: &Path) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            return file.write_all(piece);
        }
        self.octets.extend_from_slice(piece);
        if self.octets.len() > IN_MEMORY && !self.without_file {
            self.go_to_file(folder)?;
        }
        Ok(())
    }

    /// A folder that is not there, or not writable, is no reason to give the message up.
    fn go_to_file(&mut self, folder: &Path) -> io::Result<()> {
        let Ok(mut file) = unnamed_file(folder) else {
            self.without_file = true;
            return Ok(());
        };
        file.write_all(&std::mem::take(&mut self.octets))?;
        self.file = Some(file);
        Ok(())
    }

    /// The octets from this place on, as many as are handed over at once; none at the end.
    pub(super) fn piece(&self, from: u64) -> io::Result<Vec<u8>> {
        if let Some(file) = &self.file {
            return read_at(file, from);
        }
        let rest = usize::try_from(from).ok().and_then(|from| self.octets.get(from..)).unwrap_or_default();
        Ok(rest[..rest.len().min(PIECE)].to_vec())
    }
}

fn read_at(file: &File, from: u64) -> io::Result<Vec<u8>> {
    let mut piece = vec![0; PIECE];
    loop {
        match file.read_at(&mut piece, from) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => {
                piece.truncate(read?);
                return Ok(piece);
            }
        }
    }
}

/// A file without a name, which goes with this process.
fn unnamed_file(folder: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    match options.clone().custom_flags(O_TMPFILE).open(folder) {
        // Not every file system has such.
        Err(error) if matches!(error.raw_os_error(), Some(EOPNOTSUPP | EISDIR | EINVAL)) => {
            let path = folder.join(format!("redeliver-{:016x}", rand::random::<u64>()));
            let file = options.create_new(true).open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        }
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;

    /// Pieces that come one by one.
    struct Pieces(Vec<Vec<u8>>);

    #[async_trait]
    impl Input for Pieces {
        async fn next(&mut self) -> io::Result<Vec<u8>> {
            Ok(if self.0.is_empty() { Vec::new() } else { self.0.remove(0) })
        }
    }

    fn whole(kept: &Kept) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let piece = kept.piece(all.len() as u64).expect("readable");
            if piece.is_empty() {
                return all;
            }
            all.extend(piece);
        }
    }

    async fn kept(pieces: &[Vec<u8>], folder: &Path) -> Result<Kept, SubmitError> {
        let asked = Invocation { dot_ends_input: false, ..Invocation::default() };
        Kept::read(&mut Pieces(pieces.to_vec()), &asked, Some(4 << 20), folder).await
    }

    #[tokio::test]
    async fn a_message_of_any_length_is_read_again_as_it_was_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("a directory");
        for (pieces, in_file) in [(0, false), (1, false), (20, true)] {
            let pieces: Vec<_> = (0..pieces).map(|n| vec![n; 60_000]).collect();
            for (place, filed) in [(folder.path(), in_file), (Path::new("/nowhere"), false)] {
                let kept = kept(&pieces, place).await.expect("kept");
                assert_eq!(whole(&kept), pieces.concat(), "{place:?}");
                assert_eq!(kept.file.is_some(), filed, "{place:?}");
                assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 0);
            }
        }
        let named = unnamed_file(folder.path()).expect("made");
        assert_eq!(named.metadata().expect("there").len(), 0);
    }

    #[tokio::test]
    async fn what_is_far_over_the_limit_is_read_no_further() {
        let pieces: Vec<_> = (0..200).map(|_| b"0123456789\n".repeat(5000)).collect();
        let error = kept(&pieces, Path::new("/nowhere")).await.expect_err("too large");
        assert_eq!(
            (error.exit_code(), error.to_string()),
            (65, "the message is larger than 4194304 octets".to_owned())
        );
    }

    #[tokio::test]
    async fn a_lone_dot_ends_it_wherever_it_is_cut() {
        let asked = Invocation::default();
        for pieces in
            [&[&b"x\n.\nnever"[..]][..], &[b"x\n", b".", b"\n", b"never"], &[b"x\r\n.", b"\r", b"\n", b"never"]]
        {
            let mut input = Pieces(pieces.iter().map(|piece| piece.to_vec()).collect());
            let kept = Kept::read(&mut input, &asked, None, Path::new("/nowhere")).await.expect("kept");
            assert_eq!(input.0.len(), usize::from(pieces.len() > 1), "nothing is read behind it");
            assert!(whole(&kept).starts_with(b"x"));
        }
    }
}

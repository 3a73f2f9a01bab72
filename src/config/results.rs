//! Files for what comes after a build in a pipeline: Tekton's results, which Tekton Chains reads by name, and the
//! outputs of a step of GitHub Actions.

use super::env::{Environment, names};
use super::misuse::Misuse;
use crate::cli::build::OutputArgs;
use std::path::{Path, PathBuf};

/// Where Tekton looks for the results of a step.
const TEKTON: &str = "/tekton/results";

/// What a file is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultKind {
    /// The first tag.
    Url,
    /// The digest.
    Digest,
    /// Each repository with the digest.
    Images,
    /// All of it, added to what the file holds.
    Outputs,
}

/// A file to write when everything has succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultFile {
    /// The flag that asks for it.
    pub flag: &'static str,
    /// What it is to hold.
    pub kind: ResultKind,
    /// Where.
    pub path: PathBuf,
    /// Nobody asked for it by name: that it cannot be written is no failure.
    pub implied: bool,
}

/// Resolves the result files: those of the flags, in a Tekton step, recognised by its directory, the others too, and
/// the outputs where the environment names a file for them.
///
/// # Errors
/// A flag without a push.
pub(super) fn resolve(
    output: &OutputArgs,
    push: bool,
    directory: &Path,
    env: &dyn Environment,
) -> Result<Vec<ResultFile>, Misuse> {
    let mut files = in_step(output, push, directory, Path::new(TEKTON))?;
    if let Some(path) = env.get_filled(names::GITHUB_OUTPUT).filter(|_| push) {
        let (flag, kind, path) = (names::GITHUB_OUTPUT, ResultKind::Outputs, directory.join(path));
        files.push(ResultFile { flag, kind, path, implied: true });
    }
    Ok(files)
}

fn in_step(
    output: &OutputArgs,
    push: bool,
    directory: &Path,
    tekton: &Path,
) -> Result<Vec<ResultFile>, Misuse> {
    let all = [
        ("--image-url-file", ResultKind::Url, "IMAGE_URL", &output.image_url_file),
        ("--image-digest-file", ResultKind::Digest, "IMAGE_DIGEST", &output.image_digest_file),
        ("--images-file", ResultKind::Images, "IMAGES", &output.images_file),
    ];
    let step = push && tekton.is_dir();
    let mut files = Vec::new();
    for (flag, kind, name, given) in all {
        match given {
            Some(_) if !push => return Err(Misuse::ResultWithoutPush(flag)),
            Some(path) => {
                files.push(ResultFile { flag, kind, path: directory.join(path), implied: false });
            }
            None if step => files.push(ResultFile { flag, kind, path: tekton.join(name), implied: true }),
            None => {}
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[test]
    fn in_a_tekton_step_the_results_are_written_unless_a_flag_names_another_file() {
        let tekton = tempfile::tempdir().expect("a directory");
        let resolve = |arguments: &[&str], push: bool, tekton: &Path| {
            let line = ["kubectl build"].iter().chain(arguments).chain(&["."]);
            let parsed = crate::cli::build::BuildArgs::try_parse_from(line).expect("arguments");
            in_step(&parsed.output, push, Path::new("/home"), tekton)
        };
        let named = ["--images-file", "images"];
        let files = resolve(&named, true, tekton.path()).expect("files");
        let files: Vec<_> = files.into_iter().map(|file| (file.kind, file.path, file.implied)).collect();
        let expected = [
            (ResultKind::Url, tekton.path().join("IMAGE_URL"), true),
            (ResultKind::Digest, tekton.path().join("IMAGE_DIGEST"), true),
            (ResultKind::Images, PathBuf::from("/home/images"), false),
        ];
        assert_eq!(files, expected);
        assert_eq!(resolve(&[], false, tekton.path()).expect("files"), [], "nothing was pushed");
        assert_eq!(resolve(&[], true, Path::new("/no/such/step")).expect("files"), []);
        assert!(matches!(
            resolve(&named, false, tekton.path()),
            Err(Misuse::ResultWithoutPush("--images-file"))
        ));
    }
}

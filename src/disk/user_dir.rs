//! Where the user's caches are, by the rules of the platform.
//!
//! Own code, because the crates for it either need a home folder where `XDG_CACHE_HOME` is enough, or
//! a newer compiler than this crate does.

use std::ffi::OsString;
use std::path::PathBuf;

use super::DiskCacheError;

/// The folder of this crate within the user's cache folder.
const FOLDER: &str = "pipeline-cache";

/// The folder that [`DiskCache::in_user_cache`](super::DiskCache::in_user_cache) opens.
pub(super) fn user_cache_dir() -> Result<PathBuf, DiskCacheError> {
    let known = if cfg!(windows) {
        windows(|name| std::env::var_os(name))
    } else if cfg!(target_vendor = "apple") {
        apple(|name| std::env::var_os(name))
    } else {
        xdg(|name| std::env::var_os(name))
    };
    known
        .map(|folder| folder.join(FOLDER))
        .ok_or(DiskCacheError::CacheDirUnknown)
}

/// The XDG Base Directory Specification: a relative path is invalid and is to be ignored.
fn xdg(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    absolute(variable("XDG_CACHE_HOME"))
        .or_else(|| absolute(variable("HOME")).map(|home| home.join(".cache")))
}

fn apple(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    absolute(variable("HOME")).map(|home| home.join("Library").join("Caches"))
}

fn windows(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    absolute(variable("LOCALAPPDATA"))
}

fn absolute(path: Option<OsString>) -> Option<PathBuf> {
    path.map(PathBuf::from).filter(|path| path.is_absolute())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    type Environment = &'static [(&'static str, &'static str)];
    type Rule = fn(&dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf>;

    fn folder(rule: Rule, environment: &[(&str, &str)]) -> Option<String> {
        let variable = |name: &str| {
            let value = environment.iter().find(|(key, _)| *key == name);
            value.map(|(_, value)| OsString::from(value))
        };
        rule(&variable).map(|path| path.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_relative_xdg_folder_is_ignored() {
        let xdg: Rule = |variable| xdg(variable);
        let cases: [(Environment, Option<&str>); 7] = [
            (&[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")], Some("/x")),
            (&[("XDG_CACHE_HOME", "/x")], Some("/x")),
            (
                &[("XDG_CACHE_HOME", "x"), ("HOME", "/h")],
                Some("/h/.cache"),
            ),
            (&[("XDG_CACHE_HOME", ""), ("HOME", "/h")], Some("/h/.cache")),
            (&[("HOME", "/h")], Some("/h/.cache")),
            (&[("XDG_CACHE_HOME", "x"), ("HOME", "h")], None),
            (&[], None),
        ];
        for (environment, expected) in cases {
            assert_eq!(
                folder(xdg, environment).as_deref(),
                expected,
                "{environment:?}"
            );
        }
    }

    #[test]
    fn other_platforms_have_their_own_folders() {
        let home = [
            ("HOME", "/h"),
            ("LOCALAPPDATA", "/l"),
            ("XDG_CACHE_HOME", "/x"),
        ];
        let apple: Rule = |variable| apple(variable);
        let windows: Rule = |variable| windows(variable);
        assert_eq!(folder(apple, &home).as_deref(), Some("/h/Library/Caches"));
        assert_eq!(folder(windows, &home).as_deref(), Some("/l"));
        assert_eq!(folder(apple, &[]), None);
        assert_eq!(folder(windows, &[]), None);
    }
}

//! Programs a user of `pipeline-cache` would start; each is an example of this package.

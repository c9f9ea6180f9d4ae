//! The configuration without the feature `config-file`.

use std::path::Path;

use super::loading::Loading;

/// Refuses any file.
pub(super) fn read(loading: &mut Loading, path: &Path, named_by: &str) {
    loading.problems.push(format!(
        "cannot read the configuration file \"{}\" from {named_by}: this program was built without \
         the cargo feature `config-file`",
        path.display()
    ));
}

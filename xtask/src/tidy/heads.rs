//! Every source file begins with a module head that says what it is.

use std::path::Path;

use super::Violations;

/// Looks at the first line.
pub(super) fn check(file: &Path, source: &str, found: &mut Violations) {
    if !source.starts_with("//! ") {
        found.add(file.display(), "does not begin with a module head (`//! what it is`)");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_head_is_found() {
        let mut found = Violations::default();
        check(Path::new("good.rs"), "//! What it is.\n", &mut found);
        assert!(found.lines().is_empty());
        check(Path::new("bad.rs"), "use std::fmt;\n//! too late\n", &mut found);
        check(Path::new("empty.rs"), "", &mut found);
        assert_eq!(found.lines().len(), 2);
    }
}

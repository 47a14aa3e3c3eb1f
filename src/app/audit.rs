//! The audit of a home: proven in its place, or taken out to be proven anywhere.

use super::App;
use crate::graph::{Failure, ThreadId};
use crate::store::AuditError;
pub use crate::store::{AUDIT_FORMAT, AuditExport, AuditHead};

/// As data for people.
fn failure(error: AuditError) -> Failure {
    match error {
        AuditError::Store(error) => error.failure(),
        broken @ AuditError::Broken { .. } => Failure::new("audit_broken", broken.to_string())
            .because("somebody has changed, added or removed rows since they were written")
            .hint("keep the file as it is; an export or a copy from before has the rows as they were"),
    }
}

impl App {
    /// Holds every row of the home's audit against its hash and the row before it.
    pub async fn verify_audit(&self) -> Result<AuditHead, Failure> {
        self.database().verify_audit().await.map_err(failure)
    }

    /// The audit as a document: all of it, or the rows of one thread.
    pub async fn audit_export(&self, thread: Option<&ThreadId>) -> Result<AuditExport, Failure> {
        self.database().audit_export(thread).await.map_err(|e| e.failure())
    }
}

/// Proves a document without the home that it came from. `head`: a hash noted earlier, which it must have.
///
/// # Errors
/// `audit_broken` at the first row that does not fit; `export_format` where it is another kind of document.
pub fn verify_audit_export(export: &AuditExport, head: Option<&str>) -> Result<AuditHead, Failure> {
    if export.format != AUDIT_FORMAT {
        let message = format!("the document's format is `{}`, not `{AUDIT_FORMAT}`", export.format);
        return Err(Failure::new("export_format", message).hint("export it with `tidegate audit export`"));
    }
    let found = export.verify().map_err(failure)?;
    match head {
        Some(head) if !export.rows.iter().any(|row| row.hash == head) => {
            Err(Failure::new("audit_broken", format!("no row has the hash {head}"))
                .because("rows are missing at the end, or all of it was written anew")
                .hint("compare it with an export from when the hash was noted"))
        }
        _ => Ok(found),
    }
}

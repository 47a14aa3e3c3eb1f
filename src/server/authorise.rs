//! The one place that says who may do what. Every route names its action and goes through here (`routes`), and so does what a body asks for
//! beyond its route: an answer, a change of the state.

use axum::http::StatusCode;

use super::error::ApiError;
use crate::app::App;
use crate::release::{Person, Role};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    person: Person,
    key: Option<String>,
}

impl Caller {
    /// This person.
    pub fn of(person: Person) -> Self {
        Self { person, key: None }
    }

    /// The same, known by the key of this id.
    pub fn with_key(self, key: Option<String>) -> Self {
        Self { key, ..self }
    }

    /// The id of the key by which they are known.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// What they may do now: between a request's head and the end of its body a key can be revoked.
    ///
    /// # Errors
    /// Their key counts no more.
    pub async fn still(&self, app: &App) -> Result<Self, ApiError> {
        let Some(key) = &self.key else { return Ok(self.clone()) };
        match app.holder_of_key(key).await? {
            Some(person) => Ok(Self { person, key: self.key.clone() }),
            None => Err(ApiError::new(StatusCode::UNAUTHORIZED, "this key does not count: it is revoked or over")),
        }
    }

    /// The name that records get.
    pub fn name(&self) -> &str {
        &self.person.name
    }

    /// All that is known of them.
    pub fn person(&self) -> &Person {
        &self.person
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// That the server is there.
    Greet,
    /// Looking at assistants, threads, runs.
    Look,
    /// Making and changing assistants and threads.
    Keep,
    /// Starting and stopping runs.
    Run,
    /// Answering a question, changing a state, going past a gate.
    Decide,
    /// Giving others what lets them act in their own name: a link that decides.
    Hand,
}

/// What it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    /// The server as a whole.
    Server,
    /// A thread, by its id.
    Thread(String),
    /// An assistant, by its id or its graph's name.
    Assistant(String),
}

/// Whether `caller` may do `action` to `subject`. Who may decide on one release is the gate's rule, held where a decision is recorded.
pub(super) fn authorise(caller: &Caller, action: Action, subject: &Subject) -> Result<(), ApiError> {
    let has = |role| caller.person.roles.contains(&role);
    let may = match action {
        Action::Greet => true,
        Action::Look => !caller.person.roles.is_empty(),
        Action::Keep | Action::Run => has(Role::Deployer) || has(Role::Admin),
        Action::Decide => has(Role::Approver) || has(Role::Admin),
        Action::Hand => has(Role::Admin),
    };
    if may {
        return Ok(());
    }
    let needed = match action {
        Action::Greet | Action::Look => "any role",
        Action::Keep | Action::Run => "the role deployer",
        Action::Decide => "the role approver",
        Action::Hand => "the role admin",
    };
    let what = match subject {
        Subject::Server => "this".to_owned(),
        Subject::Thread(id) => format!("this to thread {id}"),
        Subject::Assistant(id) => format!("this to assistant {id}"),
    };
    Err(ApiError::new(StatusCode::FORBIDDEN, format!("{} may not do {what}: it needs {needed}", caller.name())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_its_actions() {
        let may = |role: Role, action| {
            let person = Person { roles: [role].into(), local: false, ..Person::local("ann") };
            authorise(&Caller::of(person), action, &Subject::Server).is_ok()
        };
        let all = [Action::Greet, Action::Look, Action::Keep, Action::Run, Action::Decide, Action::Hand];
        let allowed = |role| all.map(|action| may(role, action));
        assert_eq!(allowed(Role::Viewer), [true, true, false, false, false, false]);
        assert_eq!(allowed(Role::Deployer), [true, true, true, true, false, false]);
        assert_eq!(allowed(Role::Approver), [true, true, false, false, true, false]);
        assert_eq!(allowed(Role::Admin), [true; 6]);
    }
}

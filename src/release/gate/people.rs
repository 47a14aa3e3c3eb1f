//! People, and how they are named in rules.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What somebody may do. Each is a set of actions of its own; a person may have several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looks at everything.
    Viewer,
    /// Looks, makes threads, starts and stops runs: what an agent needs.
    Deployer,
    /// Looks, and decides at gates.
    Approver,
    /// Everything, keys and overrides of a freeze too.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Deployer, Self::Approver, Self::Admin];

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Deployer => "deployer",
            Self::Approver => "approver",
            Self::Admin => "admin",
        }
    }

    /// The role of that word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.word() == word)
    }
}

/// Somebody who decides, as they are known at that moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Their name.
    pub name: String,
    /// What they may do.
    pub roles: BTreeSet<Role>,
    /// The groups that they are in.
    pub groups: BTreeSet<String>,
    /// Whether they are the user of this machine, whose home it is, and have shown nothing else.
    pub local: bool,
}

impl Person {
    /// The user of this machine: may do everything, is in no group but those of the settings.
    pub fn local(name: impl Into<String>) -> Self {
        Self { name: name.into(), roles: Role::ALL.into(), groups: BTreeSet::new(), local: true }
    }
}

/// People, by name, group or role: whoever fits one of them. Nothing at all: whoever has the right.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Who {
    /// By name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<String>,
    /// By group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// By role.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<Role>,
}

impl Who {
    /// Whether it names nobody in particular.
    pub fn is_anyone(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty() && self.roles.is_empty()
    }

    /// Whether it names this person, or somebody who is in these groups of the settings.
    pub fn includes(&self, person: &Person, groups: &BTreeMap<String, BTreeSet<String>>) -> bool {
        self.is_anyone()
            || self.roles.iter().any(|role| person.roles.contains(role))
            || self.groups.iter().any(|group| person.groups.contains(group))
            || self.names(&person.name, groups)
    }

    /// Whether it names somebody of whom only the name is known.
    pub fn names(&self, name: &str, groups: &BTreeMap<String, BTreeSet<String>>) -> bool {
        self.users.iter().any(|user| user == name)
            || self.groups.iter().any(|group| groups.get(group).is_some_and(|members| members.contains(name)))
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let users = self.users.iter().cloned();
        let groups = self.groups.iter().map(|group| format!("group {group}"));
        let roles = self.roles.iter().map(|role| format!("role {}", role.word()));
        f.write_str(&users.chain(groups).chain(roles).collect::<Vec<_>>().join(" or "))
    }
}

/// Somebody decides in another's place for a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Delegation {
    /// In whose place.
    pub from: String,
    /// Who decides.
    pub to: String,
    /// From when on; absent: at once.
    #[serde(default)]
    pub since: Option<DateTime<Utc>>,
    /// Until when.
    pub until: DateTime<Utc>,
}

impl Delegation {
    /// Whether it counts at `now`.
    pub fn counts(&self, now: DateTime<Utc>) -> bool {
        self.since.is_none_or(|since| since <= now) && now < self.until
    }
}

use chrono::TimeDelta;

use super::super::{Delegation, Freeze, Who};
use super::*;

fn now() -> DateTime<Utc> {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

fn policy() -> Policy {
    let groups = [("leads".to_owned(), ["ann", "bob", "eve"].map(str::to_owned).into())].into();
    let until = now() + TimeDelta::days(1);
    let delegations = vec![
        Delegation { from: "ann".into(), to: "zoe".into(), since: None, until },
        Delegation { from: "eve".into(), to: "old".into(), since: None, until: now() },
    ];
    Policy { groups, delegations, ..Policy::default() }
}

fn two_leads_and_an_approver() -> Terms {
    let of_group = Who { groups: vec!["leads".into()], ..Who::default() };
    let of_role = Who { roles: vec![Role::Approver], ..Who::default() };
    Terms {
        rule: "production".into(),
        approvals: vec![Quorum { count: 2, of: of_group }, Quorum { count: 1, of: of_role }],
        own_requests: OwnRequests::Refused,
        on_expiry: OnExpiry::Reject,
        ttl_ms: None,
        remind_after_ms: None,
        reason_required: false,
    }
}

fn person(name: &str, roles: &[Role]) -> Person {
    Person { name: name.into(), roles: roles.iter().copied().collect(), groups: BTreeSet::new(), local: false }
}

fn yes<'a>(person: &'a Person, requested_by: &'a str) -> Casting<'a> {
    Casting {
        person,
        requested_by: Some(requested_by),
        environment: Some("prod"),
        verdict: Verdict::Approve,
        reason: None,
        overrides: false,
        at: now(),
        via: "test",
    }
}

#[test]
fn n_of_m_for_each_group_and_role() {
    let (policy, terms) = (policy(), two_leads_and_an_approver());
    let cast = |name: &str, roles: &[Role]| policy.cast(Some(&terms), &yes(&person(name, roles), "agent")).unwrap();
    let ann = cast("ann", &[Role::Approver]);
    assert_eq!(ann.counts_for, [0, 1], "one person may count for several");
    let Standing::Open(missing) = Standing::after(Some(&terms), std::slice::from_ref(&ann)) else { panic!() };
    assert_eq!((missing.len(), missing[0].count), (1, 1));
    let bob = cast("bob", &[]);
    assert_eq!(Standing::after(Some(&terms), &[ann.clone(), bob]), Standing::Approved);
    let zoe = cast("zoe", &[]);
    assert_eq!(zoe.instead_of.as_deref(), Some("ann"));
    assert!(matches!(Standing::after(Some(&terms), &[ann, zoe]), Standing::Open(_)), "ann's right counts once");
}

#[test]
fn who_may_not_is_told_why() {
    let (policy, terms) = (policy(), two_leads_and_an_approver());
    let refused = |name: &str, by: &str| policy.cast(Some(&terms), &yes(&person(name, &[]), by)).unwrap_err().code();
    assert_eq!(refused("ann", "ann"), "own_request");
    assert_eq!(
        refused("zoe", "ann"),
        "not_an_approver",
        "nobody approves what the one asked for in whose place they are"
    );
    assert_eq!(refused("zoe", "zoe"), "own_request");
    assert_eq!(refused("mallory", "agent"), "not_an_approver");
    assert_eq!(refused("old", "agent"), "not_an_approver", "a delegation that is over");
    let ann = person("ann", &[]);
    let no = Casting { verdict: Verdict::Reject, reason: Some("stale"), ..yes(&ann, "ann") };
    assert_eq!(policy.cast(Some(&terms), &no).unwrap().verdict, Verdict::Reject, "one's own request may be withdrawn");
}

#[test]
fn without_a_rule_keys_do_not_approve_their_own_requests() {
    let policy = policy();
    assert_eq!(policy.cast(None, &yes(&person("agent", &[]), "agent")).unwrap_err().code(), "own_request");
    let vote = policy.cast(None, &yes(&Person::local("agent"), "agent")).unwrap();
    assert_eq!(Standing::after(None, &[vote]), Standing::Approved);
}

#[test]
fn a_freeze_is_overridden_with_right_and_reason() {
    let freeze = Freeze {
        name: "year end".into(),
        from: Some(now() - TimeDelta::hours(1)),
        until: Some(now() + TimeDelta::hours(1)),
        weekly: None,
        environments: Vec::new(),
        may_override: Who::default(),
    };
    let policy = Policy { freezes: vec![freeze], ..policy() };
    let (ann, admin) = (person("ann", &[Role::Approver]), person("root", &[Role::Admin]));
    let code = |said: Casting<'_>| policy.cast(None, &said).unwrap_err().code();
    assert_eq!(code(yes(&ann, "agent")), "frozen");
    let overriding = |person| Casting { overrides: true, ..yes(person, "agent") };
    assert_eq!(code(overriding(&ann)), "not_an_approver");
    assert_eq!(code(overriding(&admin)), "decision_unexplained");
    let said = Casting { reason: Some("outage"), ..overriding(&admin) };
    assert_eq!(policy.cast(None, &said).unwrap().overrides.as_deref(), Some("year end"));
    let no = Casting { verdict: Verdict::Reject, reason: Some("stale"), ..yes(&ann, "agent") };
    assert!(policy.cast(None, &no).is_ok(), "a no is never held up");
}

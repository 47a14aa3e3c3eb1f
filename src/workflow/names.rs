//! Which names of its surroundings an expression uses.

use std::collections::{BTreeMap, BTreeSet};

use cel::IdedExpr as Expression;
use cel::common::ast::{EntryExpr, Expr, LiteralValue};

use crate::graph::{ChannelType, Field};

/// The name under which all channels are fields.
pub(super) const STATE: &str = "state";

/// Names that CEL itself gives a meaning.
pub(super) const CEL_TYPES: [&str; 11] =
    ["bool", "bytes", "double", "dyn", "int", "list", "map", "null_type", "string", "type", "uint"];

/// CEL's standard functions and methods, as far as they are built in; `timestamp` and `duration` are not. What stands beside them is a
/// macro (`has`, `all`, `exists`, `exists_one`, `map`, `filter`, `optMap`, `optFlatMap`) and no call any more when it has been read.
pub(super) const FUNCTIONS: [&str; 20] = [
    "bool",
    "bytes",
    "contains",
    "double",
    "dyn",
    "endsWith",
    "hasValue",
    "int",
    "matches",
    "none",
    "of",
    "ofNonZeroValue",
    "or",
    "orValue",
    "size",
    "startsWith",
    "string",
    "type",
    "uint",
    "value",
];

/// Operators that do not need all their operands: `&&` and `||` pass over an error on one side if the other one decides.
const LAZY: [&str; 6] = ["_?_:_", "_&&_", "_||_", "@not_strictly_false", "_?._", "_[?_]"];

/// Evaluation goes through a scope of its own for each.
const COMPREHENSION: usize = 2;

/// Names that an expression takes from outside; what its comprehensions bind is not among them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// Bare names.
    pub bare: BTreeSet<String>,
    /// Fields of `state`.
    pub fields: BTreeSet<String>,
    /// `state` is used as a whole.
    pub whole: bool,
    /// Bare names and fields without which the expression has no value, whatever the others are.
    pub needed: BTreeSet<String>,
    /// Functions and methods that it calls.
    pub functions: BTreeSet<String>,
    /// How deep the expression's tree is; what a comprehension does in one step counts as several levels.
    pub depth: usize,
    /// A comprehension goes over something for each step of another one: no length of a list bounds how long that takes.
    pub nested: bool,
}

impl Names {
    pub fn of(expression: &Expression) -> Self {
        let mut names = Self::default();
        names.walk(expression, &mut Vec::new(), 1);
        names.need(expression);
        names
    }

    /// Every channel it names.
    pub fn all(&self) -> impl Iterator<Item = &String> {
        self.bare.iter().chain(&self.fields)
    }

    /// Notes what is evaluated in any case.
    fn need(&mut self, expression: &Expression) {
        match &expression.expr {
            Expr::Ident(name) => {
                let plain = name.strip_prefix('.').unwrap_or(name);
                if plain != STATE && !plain.starts_with('@') && !CEL_TYPES.contains(&plain) {
                    self.needed.insert(plain.to_owned());
                }
            }
            // `has(…)` asks.
            Expr::Select(select) if select.test => {}
            Expr::Select(select) if is_state(&select.operand, &[]) => {
                self.needed.insert(select.field.clone());
            }
            Expr::Select(select) => self.need(&select.operand),
            Expr::Call(call) if call.func_name == "_?_:_" => call.args.iter().take(1).for_each(|arg| self.need(arg)),
            Expr::Call(call) if LAZY.contains(&call.func_name.as_str()) => {}
            Expr::Call(call) => call.target.iter().map(|target| &**target).chain(&call.args).for_each(|e| self.need(e)),
            Expr::List(list) => list.elements.iter().for_each(|item| self.need(item)),
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.need(&entry.key);
                        self.need(&entry.value);
                    }
                }
            }
            // What goes over an empty list does nothing at all.
            Expr::Comprehension(over) => self.need(&over.iter_range),
            Expr::Unspecified | Expr::Literal(_) | Expr::Struct(_) => {}
        }
    }

    fn walk<'e>(&mut self, expression: &'e Expression, bound: &mut Vec<&'e str>, depth: usize) {
        self.depth = self.depth.max(depth);
        let inside = depth + 1;
        match &expression.expr {
            Expr::Unspecified | Expr::Literal(_) => {}
            Expr::Ident(name) => self.name(name, bound),
            Expr::Select(select) if is_state(&select.operand, bound) => {
                self.fields.insert(select.field.clone());
            }
            Expr::Select(select) => self.walk(&select.operand, bound, inside),
            Expr::Call(call) => {
                // Operators are calls too, of names that nobody can write.
                let name = call.func_name.trim_start_matches('.');
                let plain = |c: char| c == '_' || c == '.' || c.is_alphanumeric();
                if name.chars().all(plain) && name.contains(char::is_alphabetic) {
                    self.functions.insert(name.to_owned());
                }
                if let (None, [on, index]) = (&call.target, call.args.as_slice())
                    && call.func_name == "_[_]"
                    && is_state(on, bound)
                    && let Expr::Literal(LiteralValue::String(field)) = &index.expr
                {
                    self.fields.insert(field.inner().to_owned());
                    return;
                }
                call.target.iter().for_each(|target| self.walk(target, bound, inside));
                call.args.iter().for_each(|arg| self.walk(arg, bound, inside));
            }
            Expr::List(list) => list.elements.iter().for_each(|item| self.walk(item, bound, inside)),
            Expr::Map(map) => map.entries.iter().for_each(|entry| self.entry(&entry.expr, bound, inside)),
            Expr::Struct(of) => of.entries.iter().for_each(|entry| self.entry(&entry.expr, bound, inside)),
            Expr::Comprehension(over) => {
                self.nested |= !bound.is_empty();
                self.walk(&over.iter_range, bound, inside);
                self.walk(&over.accu_init, bound, inside);
                let outside = bound.len();
                bound.extend([over.iter_var.as_str(), over.accu_var.as_str()]);
                bound.extend(over.iter_var2.as_deref());
                for step in [&over.loop_cond, &over.loop_step, &over.result] {
                    self.walk(step, bound, inside + COMPREHENSION);
                }
                bound.truncate(outside);
            }
        }
    }

    fn entry<'e>(&mut self, entry: &'e EntryExpr, bound: &mut Vec<&'e str>, depth: usize) {
        match entry {
            EntryExpr::StructField(field) => self.walk(&field.value, bound, depth),
            EntryExpr::MapEntry(entry) => {
                self.walk(&entry.key, bound, depth);
                self.walk(&entry.value, bound, depth);
            }
        }
    }

    fn name(&mut self, name: &str, bound: &[&str]) {
        // A leading dot means "not what a comprehension binds"; names with @ are the macros' own.
        let (plain, absolute) = name.strip_prefix('.').map_or((name, false), |plain| (plain, true));
        if plain.starts_with('@') || (!absolute && bound.contains(&plain)) {
            return;
        }
        if plain == STATE {
            self.whole = true;
        } else {
            self.bare.insert(plain.to_owned());
        }
    }
}

/// What is read by expressions of which `always` are evaluated in any case and `perhaps` are not; `None`: any channel.
pub(super) fn reads<'n>(
    always: impl IntoIterator<Item = &'n Names>,
    perhaps: impl IntoIterator<Item = &'n Names>,
) -> Option<BTreeMap<String, Field>> {
    let mut reads = BTreeMap::new();
    let all = always.into_iter().map(|names| (names, true)).chain(perhaps.into_iter().map(|names| (names, false)));
    for (names, evaluated) in all {
        if names.whole {
            return None;
        }
        for name in names.all() {
            let required = evaluated && names.needed.contains(name);
            let field = reads.entry(name.clone()).or_insert(Field { kind: ChannelType::Any, required });
            field.required |= required;
        }
    }
    Some(reads)
}

fn is_state(expression: &Expression, bound: &[&str]) -> bool {
    matches!(&expression.expr, Expr::Ident(name) if name == STATE && !bound.contains(&STATE))
}

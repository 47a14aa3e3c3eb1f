//! How a model's traffic is divided among its versions: what a route carries.

use serde::{Deserialize, Serialize};

/// All of a model's traffic: weights and shares are parts of this.
pub const WHOLE: u32 = crate::release::WHOLE_WEIGHT;

/// How a model's traffic is divided. Empty legs without a hold: the model is not served.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrafficPlan {
    /// The stable leg first, then the candidates. Their weights make [`WHOLE`].
    pub legs: Vec<Leg>,
    /// Token of a slot kept warm, to which the gateway falls back by itself when the stable leg has no slot left.
    pub standby: Option<String>,
    /// Keeps a caller at the version it had; without it every request is drawn anew.
    pub sticky: Option<Sticky>,
    /// Lets holders of a token choose the version, also one of weight 0.
    pub version_header: Option<VersionHeader>,
    /// Repeats a share of the live requests at a candidate.
    pub mirror: Option<Mirror>,
    /// Requests wait instead of being answered, whatever the legs are.
    pub hold: Option<Hold>,
    /// A lease: the owner renews it within this time, or the gateway returns everything to the stable leg.
    pub renew_within_ms: Option<u64>,
}

/// One version's part of a model's traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leg {
    /// The version of all its slots; no two legs of a route have the same.
    pub version: String,
    /// Tokens of its replicas; each request goes to one with few under way.
    pub slots: Vec<String>,
    /// Its part of [`WHOLE`]; 0: only who asks for this version, and mirrored requests.
    pub weight: u32,
}

/// What a caller is known by. The same caller gets the same leg; raising a candidate's weight only moves callers towards it (with up to
/// two candidates; a third may push its neighbour's callers on).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "by")]
pub enum Sticky {
    /// The value of a request header. A request without it is drawn.
    Header {
        /// The header's name.
        name: String,
    },
    /// A cookie that the gateway sets: a random number, which says nothing of the caller or the version.
    Cookie {
        /// The cookie's name.
        #[serde(default = "default_cookie")]
        name: String,
        /// How long a browser keeps it.
        #[serde(default = "default_cookie_age_s")]
        max_age_s: u64,
    },
    /// The address that the connection comes from. Behind another proxy that is the proxy's: take a header there.
    ClientIp,
}

fn default_cookie() -> String {
    "tidegate-split".to_owned()
}

fn default_cookie_age_s() -> u64 {
    30 * 24 * 3600
}

/// `x-tidegate-version: VERSION` with `x-tidegate-token: TOKEN` chooses the version. Neither header is forwarded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionHeader {
    /// SHA-256 of the token, in lower-case hex; the token itself is kept nowhere.
    pub token_sha256: String,
}

/// Repeats requests at a candidate, beside the answer and never instead of it. A repeated request has `x-tidegate-mirror: 1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// Version of the candidate leg that gets them.
    pub to: String,
    /// Part of [`WHOLE`] of those that may be repeated.
    pub share: u32,
    /// Methods that may be repeated. A prediction by POST has to be declared: only its author knows that it changes nothing.
    #[serde(default = "default_methods")]
    pub methods: Vec<String>,
    /// Beginnings of paths, below the model's prefix, that may be repeated.
    #[serde(default = "default_paths")]
    pub paths: Vec<String>,
}

fn default_methods() -> Vec<String> {
    vec!["GET".to_owned(), "HEAD".to_owned()]
}

fn default_paths() -> Vec<String> {
    vec!["/".to_owned()]
}

/// Requests wait while nothing may answer them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// A request that waited this long is answered 503. How many may wait at once is a setting of the host.
    pub timeout_ms: u64,
}

impl Sticky {
    /// A cookie of the usual name and age.
    pub fn cookie() -> Self {
        Self::Cookie { name: default_cookie(), max_age_s: default_cookie_age_s() }
    }
}

impl TrafficPlan {
    /// Everything to one version.
    pub fn all_to(version: impl Into<String>, slots: Vec<String>, standby: Option<String>) -> Self {
        let legs = vec![Leg { version: version.into(), slots, weight: WHOLE }];
        Self { legs, standby, ..Self::default() }
    }

    /// The leg that the gateway goes back to.
    pub fn stable(&self) -> Option<&Leg> {
        self.legs.first()
    }

    /// The other legs.
    pub fn candidates(&self) -> &[Leg] {
        self.legs.get(1..).unwrap_or_default()
    }

    /// Whether a candidate gets anything that users send.
    pub fn is_partial(&self) -> bool {
        self.mirror.is_some() || self.candidates().iter().any(|leg| leg.weight > 0)
    }

    /// The same without candidates, as when a lease was not renewed.
    pub fn back_to_stable(&self) -> Self {
        let stable = self.stable().map(|leg| Leg { weight: WHOLE, ..leg.clone() });
        Self { legs: stable.into_iter().collect(), standby: self.standby.clone(), ..Self::default() }
    }

    /// Tokens of all slots that it names, the standby too.
    pub fn slots(&self) -> impl Iterator<Item = &String> {
        self.legs.iter().flat_map(|leg| &leg.slots).chain(&self.standby)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_its_default() {
        let plan: TrafficPlan = serde_json::from_str(
            r#"{"legs":[{"version":"v1","slots":["a"],"weight":95000},{"version":"v2","slots":["b"],"weight":5000}],
                "sticky":{"by":"cookie"},"mirror":{"to":"v2","share":100000}}"#,
        )
        .unwrap();
        assert_eq!(plan.sticky, Some(Sticky::Cookie { name: "tidegate-split".into(), max_age_s: 2_592_000 }));
        assert_eq!(plan.mirror.as_ref().unwrap().methods, ["GET", "HEAD"]);
        assert!(plan.is_partial() && plan.candidates().len() == 1);
        let back = plan.back_to_stable();
        assert_eq!(back, TrafficPlan::all_to("v1", vec!["a".into()], None));
        assert!(!back.is_partial());
        assert!(serde_json::from_str::<TrafficPlan>(r#"{"leg":[]}"#).is_err());
    }
}

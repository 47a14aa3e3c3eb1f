//! Asking the person at the client before something is taken back, where the client can ask.
//!
//! Two ways, by the protocol's version: the server asks while the call is under way (before 2026-07-28), or it answers with what it wants to
//! know and the client calls again with the answer.

use std::time::Duration;

use rmcp::model::{
    BooleanSchema, ElicitRequest, ElicitRequestParams, ElicitResult, ElicitationAction, ElicitationSchema,
    InputRequest, InputRequests, InputRequiredResult, ProtocolVersion,
};

use super::call::Call;
use crate::graph::{Failure, digest};

/// The one thing that is asked for, and the name of the question.
const CONFIRM: &str = "confirm";
/// How long a person gets.
const WITHIN: Duration = Duration::from_secs(300);

/// What came of asking.
pub enum Confirmed {
    /// The person said yes, or the client cannot ask: then the call itself is the word.
    Yes,
    /// They did not.
    No(Failure),
    /// The client is to ask, and to call again.
    Asks(Box<InputRequiredResult>),
}

/// Asks `question`, a yes or no.
pub async fn confirm(call: &Call<'_>, question: &str) -> Confirmed {
    let declared = call.context.client_capabilities().and_then(|client| client.elicitation);
    // Neither named: the form, as before there was anything else.
    let can_ask = declared.is_some_and(|modes| modes.form.is_some() || modes.url.is_none());
    if !can_ask {
        return Confirmed::Yes;
    }
    let Ok(form) =
        ElicitationSchema::builder().required_bool_property(CONFIRM, |_: BooleanSchema| yes(question)).build()
    else {
        return Confirmed::No(Failure::new("not_confirmed", "the question cannot be asked"));
    };
    let asked =
        ElicitRequestParams::FormElicitationParams { meta: None, message: question.to_owned(), requested_schema: form };
    let version = call.context.protocol_version();
    if version.is_some_and(|version| version.as_str() >= ProtocolVersion::V_2026_07_28.as_str()) {
        return again(call, question, asked);
    }
    match call.context.peer.create_elicitation_with_timeout(asked, Some(WITHIN)).await {
        Ok(said) => heard(&said),
        Err(error) => Confirmed::No(refused().because(error.to_string())),
    }
}

fn yes(question: &str) -> BooleanSchema {
    BooleanSchema::new().title("Yes, do it").description(question.to_owned())
}

/// The answer that this call carries, if it is one to this question; otherwise the question.
fn again(call: &Call<'_>, question: &str, asked: ElicitRequestParams) -> Confirmed {
    // What was agreed to is what stood there then: if something else is live by now, it is asked anew.
    let about = digest(&question.into());
    let said = call.request.input_responses.as_ref().and_then(|said| said.get(CONFIRM));
    if let Some(said) = said.filter(|_| call.request.request_state.as_deref() == Some(&about)) {
        return match serde_json::from_value::<ElicitResult>(said.clone()) {
            Ok(said) => heard(&said),
            Err(error) => Confirmed::No(refused().because(error.to_string())),
        };
    }
    let request = InputRequest::Elicitation(ElicitRequest::new(asked));
    let requests = InputRequests::from([(CONFIRM.to_owned(), request)]);
    Confirmed::Asks(Box::new(InputRequiredResult::new(Some(requests), Some(about))))
}

fn heard(said: &ElicitResult) -> Confirmed {
    let yes = said.content.as_ref().is_some_and(|content| content[CONFIRM] == true);
    if said.action == ElicitationAction::Accept && yes { Confirmed::Yes } else { Confirmed::No(refused()) }
}

fn refused() -> Failure {
    Failure::new("not_confirmed", "the person at the client did not say yes")
        .hint("nothing was done; call again to ask again")
}

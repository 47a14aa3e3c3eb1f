//! The tools: their names, what they say of themselves, what they take and give.

use std::sync::LazyLock;

use rmcp::model::{Tool, ToolAnnotations};

use super::portable::portable;
use super::{arguments as takes, told};

/// The tools, in the order in which a release needs them.
pub fn tools() -> &'static [Tool] {
    static TOOLS: LazyLock<Vec<Tool>> = LazyLock::new(|| {
        let tools = [
            deploy_plan(),
            deploy_start(),
            deploy_status(),
            deploy_cancel(),
            rollback(),
            list_releases(),
            explain_run(),
        ];
        tools.into_iter().map(portable).collect()
    });
    &TOOLS
}

fn tool(name: &'static str, title: &str, description: &'static str) -> Tool {
    Tool::new(name, description, serde_json::Map::new()).with_title(title)
}

fn looks(title: &str) -> ToolAnnotations {
    ToolAnnotations::with_title(title).read_only(true).destructive(false).idempotent(true).open_world(false)
}

fn changes(title: &str) -> ToolAnnotations {
    ToolAnnotations::with_title(title).read_only(false).destructive(true)
}

fn deploy_plan() -> Tool {
    const TITLE: &str = "Show what a release would do";
    tool("deploy_plan", TITLE, "Shows what a release would do and why, rule by rule: strategy, checks, whether a person is asked. Changes nothing.")
        .with_input_schema::<takes::Plan>()
        .with_output_schema::<told::Planned>()
        .with_annotations(looks(TITLE))
}

fn deploy_start() -> Tool {
    const TITLE: &str = "Release a model";
    tool(
        "deploy_start",
        TITLE,
        "Begins a release: build, start beside the live version, checks, approval by a person where policy wants one, traffic. Returns its \
         thread_id; the release goes on whatever becomes of this client. Follow it with deploy_status.",
    )
    .with_input_schema::<takes::Start>()
    .with_output_schema::<told::Release>()
    .with_annotations(changes(TITLE).idempotent(false).open_world(true))
}

fn deploy_status() -> Tool {
    const TITLE: &str = "How a release stands";
    tool(
        "deploy_status",
        TITLE,
        "Tells how a release or rollback stands: its status, the question a person must decide and how, why it failed, and the contract \
         (ModelDeployerOutput) when it has ended well.",
    )
    .with_input_schema::<takes::Status>()
    .with_output_schema::<told::Release>()
    .with_annotations(looks(TITLE))
}

fn deploy_cancel() -> Tool {
    const TITLE: &str = "Stop a release and undo it";
    tool(
        "deploy_cancel",
        TITLE,
        "Stops a release that has not ended: all traffic goes back, and everything that it did is undone. One that is complete is not \
         cancelled; use rollback.",
    )
    .with_input_schema::<takes::Cancel>()
    .with_output_schema::<told::Release>()
    .with_annotations(changes(TITLE).idempotent(true).open_world(false))
}

fn rollback() -> Tool {
    const TITLE: &str = "Go back to an earlier version";
    tool("rollback", TITLE, "Sends a model's traffic back to the version before, or to a named one, without a build.")
        .with_input_schema::<takes::Rollback>()
        .with_output_schema::<told::Release>()
        .with_annotations(changes(TITLE).idempotent(false).open_world(false))
}

fn list_releases() -> Tool {
    const TITLE: &str = "Releases, newest first";
    tool("list_releases", TITLE, "Lists releases and rollbacks, newest first: what serves, what failed and why.")
        .with_input_schema::<takes::List>()
        .with_output_schema::<told::Releases>()
        .with_annotations(looks(TITLE))
}

fn explain_run() -> Tool {
    const TITLE: &str = "Why a run went as it did";
    tool(
        "explain_run",
        TITLE,
        "Tells a run step by step, with the planner's reasons, the checks, the judge's verdicts, who decided what, and what was undone.",
    )
    .with_input_schema::<takes::Explain>()
    .with_output_schema::<told::Explained>()
    .with_annotations(looks(TITLE))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_tool_says_what_it_takes_gives_and_does() {
        for tool in tools() {
            let input = serde_json::Value::Object((*tool.input_schema).clone());
            assert_eq!((&input["type"], &input["additionalProperties"]), (&json!("object"), &json!(false)), "{tool:?}");
            let output = serde_json::Value::Object((**tool.output_schema.as_ref().expect("an output")).clone());
            assert_eq!(output["type"], json!("object"), "{tool:?}");
            assert!(jsonschema::meta::is_valid(&input) && jsonschema::meta::is_valid(&output));
            let hints = tool.annotations.as_ref().expect("annotations");
            assert_eq!(hints.read_only_hint, hints.destructive_hint.map(|harms| !harms), "{tool:?}");
            assert!(hints.idempotent_hint.is_some() && hints.open_world_hint.is_some());
            // Whoever asks for a release must not be able to say yes to it.
            assert!(!["approve", "reject", "decide"].iter().any(|word| tool.name.contains(word)));
        }
    }
}

//! Releases a project from Rust, at the library's three levels.
//!
//! `cargo run --example deploy -- examples/iris` needs a release file that asks for no approval, or somebody who approves.

use std::path::Path;
use std::sync::Arc;

use tidegate::app::{App, Home, Overrides, read_request};
use tidegate::graph::Advance;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let project = std::env::args().nth(1).unwrap_or_else(|| "examples/iris".to_owned());
    let request = read_request(Path::new(&project), &Overrides::default())?;

    // Level one is one call: `tidegate::app::deploy(&request).await?`.
    // Level two are its steps:
    let home = std::env::var_os("TIDEGATE_HOME");
    let app = Arc::new(App::open(Home::open(home.as_deref().map(Path::new))?, "example", None).await?);
    let plan = app.plan(request.clone()).await?;
    println!("{}", plan.lines().join("\n"));
    let release = app.start_deploy(&request).await?;
    let end = app.advance(&release, Advance::default()).await?;
    println!("release {release} is {}", end.status.word());
    for question in app.questions(Some(&release)).await? {
        println!("it waits: tidegate approve {}", question.interrupt.id);
    }

    // Level three are the parts: the ports (`app.world()`), the engine (`app.engine()`), the store (`app.store()`). And over all of
    // them the managers that other tools know:
    let again = request.clone();
    let manager = app.manager(Arc::new(move |_| Ok(again.clone())));
    for row in manager.active_deployments().await? {
        println!("{} {:?} serves at {:?}", row.model_name, row.model_version, row.endpoint_url);
    }
    Ok(())
}

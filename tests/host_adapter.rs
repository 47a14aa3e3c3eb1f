//! This machine through the ports, as the nodes see it.

mod host_support;

use host_support::{Home, switch_to};
use tidegate::adapters::local::LocalHost;
use tidegate::ports::{SlotState, Target, TrafficRouter};

#[tokio::test]
async fn the_ports_start_the_daemon_on_demand_and_pass_its_errors_on() {
    let home = Home::new();
    let host = LocalHost::new(home.config.clone());
    assert!(host.slots().await.unwrap().is_empty());
    assert!(host.endpoint_url("iris").await.unwrap().ends_with("/iris"));
    host.start_slot(&home.request("a", "v1")).await.unwrap();
    home.until("it is ready", async || host.slot("a").await.unwrap().filter(|slot| slot.state == SlotState::Ready))
        .await;
    let route = host.switch(&switch_to("a", None, 0)).await.unwrap();
    assert_eq!(host.route("iris").await.unwrap().as_ref(), Some(&route));
    assert_eq!(host.routes().await.unwrap(), [route]);
    assert_eq!(host.drain("a", 1_000).await.unwrap(), 0);
    assert_eq!(host.traffic("iris").await.unwrap()[0].token, "a");
    assert!(host.slot_log("a", 1).await.unwrap()[0].starts_with("starting"));

    let refused = host.remove_slot("a", 1_000).await.unwrap_err();
    assert_eq!((refused.code.as_str(), refused.retryable), ("slot_is_routed", false));
    assert!(refused.message.contains("iris") && refused.hint.is_some());
}

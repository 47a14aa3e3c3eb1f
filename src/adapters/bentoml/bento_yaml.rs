//! What `bento.yaml` says about a built bento: the part that a release needs.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::ports::{PortError, ServiceRoute};

/// BentoML's own file: keys that are not needed here are ignored on purpose, it grows with every version of BentoML.
#[derive(Debug, Deserialize)]
pub(super) struct BentoYaml {
    /// `module:Class`.
    pub service: String,
    pub name: String,
    pub version: String,
    #[serde(default)]
    entry_service: String,
    #[serde(default)]
    models: Vec<Model>,
    #[serde(default)]
    services: Vec<Service>,
    #[serde(default)]
    schema: Schema,
}

#[derive(Debug, Deserialize)]
struct Model {
    tag: String,
    /// `huggingface` models lie in that library's own cache.
    #[serde(default)]
    registry: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Service {
    #[serde(default)]
    name: String,
    #[serde(default)]
    models: Vec<Model>,
    #[serde(default)]
    config: Option<Config>,
}

/// What the service's code sets, as far as it says how many workers there are.
#[derive(Debug, Default, Deserialize)]
struct Config {
    #[serde(default)]
    resources: Option<Resources>,
    #[serde(default)]
    replicate_process: Value,
    #[serde(default)]
    workers: Value,
}

#[derive(Debug, Deserialize)]
struct Resources {
    #[serde(default)]
    gpu: Value,
}

#[derive(Debug, Default, Deserialize)]
struct Schema {
    #[serde(default)]
    routes: Vec<Route>,
}

#[derive(Debug, Deserialize)]
struct Route {
    route: String,
    #[serde(default)]
    input: Value,
    #[serde(default)]
    output: Value,
}

impl BentoYaml {
    /// Reads it from a bento's folder.
    pub(super) fn read(bento: &Path) -> Result<Self, PortError> {
        let path = bento.join("bento.yaml");
        let text =
            std::fs::read_to_string(&path).map_err(|error| super::super::files::io_error("read", &path, &error))?;
        serde_saphyr::from_str(&text).map_err(|error| {
            PortError::new("bento_unreadable", "cannot read what BentoML wrote into bento.yaml")
                .because(error.to_string())
                .hint("BentoML 1.4 is what Tidegate knows; check the version in the project's requirements")
        })
    }

    /// The service's class, as BentoML's configuration keys it.
    pub(super) fn class(&self) -> &str {
        let class = self.service.rsplit(':').next().unwrap_or(&self.service);
        if self.entry_service.is_empty() { class } else { &self.entry_service }
    }

    /// How many workers the service's code asks for: one where it says nothing. `None` where it leaves that to the machine: to its processors,
    /// or to its GPUs, which workers would share.
    pub(super) fn workers(&self) -> Option<u32> {
        let service = self.services.iter().find(|service| service.name == self.class())?;
        let Some(config) = &service.config else { return Some(1) };
        if config.resources.as_ref().is_some_and(|r| !r.gpu.is_null()) || config.replicate_process == true {
            return None;
        }
        match &config.workers {
            Value::Null => Some(1),
            workers => workers.as_u64().and_then(|workers| u32::try_from(workers).ok()).filter(|workers| *workers > 0),
        }
    }

    /// Tags of the models that must travel with the bento, sorted.
    pub(super) fn model_tags(&self) -> Vec<String> {
        let all = self.models.iter().chain(self.services.iter().flat_map(|service| &service.models));
        let own = all.filter(|model| model.registry.as_deref().is_none_or(|registry| registry == "bentoml"));
        let mut tags: Vec<String> = own.map(|model| model.tag.clone()).collect();
        tags.sort();
        tags.dedup();
        tags
    }

    /// The routes with their schemas.
    pub(super) fn routes(&self) -> Vec<ServiceRoute> {
        let route = |route: &Route| ServiceRoute {
            path: route.route.clone(),
            input: route.input.clone(),
            output: route.output.clone(),
        };
        self.schema.routes.iter().map(route).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_a_number_or_not_known() {
        for (config, workers) in [
            ("", Some(1)),
            ("  config: {}\n", Some(1)),
            ("  config: { workers: 4, traffic: { timeout: 10 } }\n", Some(4)),
            // Whatever else stands there, and however it is keyed.
            ("  config: { labels: { 1: x, 2.5: y, [a]: z }, workers: 2 }\n", Some(2)),
            ("  config: { workers: cpu_count }\n", None),
            ("  config: { workers: 0 }\n", None),
            ("  config: { resources: { gpu: 1 } }\n", None),
            ("  config: { replicate_process: true }\n", None),
        ] {
            let text = format!(
                "service: s:A\nname: a\nversion: v\nentry_service: A\nservices:\n- name: B\n- name: A\n{config}"
            );
            let bento: BentoYaml = serde_saphyr::from_str(&text).unwrap();
            assert_eq!(bento.workers(), workers, "{config}");
        }
    }

    /// As BentoML 1.4.39 wrote it.
    const IRIS: &str = "service: service:IrisClassifier\nname: iris_classifier\nversion: vrlrfwhfdk6p6ax4\nmodels: []\n\
        entry_service: IrisClassifier\nservices:\n- name: IrisClassifier\n  service: ''\n  models:\n  - tag: iris_clf:ne6elvxf\n    \
        module: bentoml.sklearn\n    creation_time: '2026-11-20T19:41:42.267253+00:00'\n  - tag: bert:1\n    registry: huggingface\n\
        schema:\n  name: IrisClassifier\n  routes:\n  - name: predict\n    route: /predict\n    batchable: false\n    input:\n      \
        properties:\n        features:\n          type: tensor\n      type: object\n    output:\n      type: tensor\n";

    #[test]
    fn the_needed_part_is_read() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("bento.yaml"), IRIS).unwrap();
        let bento = BentoYaml::read(folder.path()).unwrap();
        assert_eq!((bento.name.as_str(), bento.class()), ("iris_classifier", "IrisClassifier"));
        assert_eq!(bento.model_tags(), ["iris_clf:ne6elvxf"]);
        let routes = bento.routes();
        assert_eq!(routes[0].path, "/predict");
        assert_eq!(routes[0].input["properties"]["features"]["type"], "tensor");
    }
}

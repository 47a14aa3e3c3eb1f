"""Trains the iris classifier and saves it in BentoML's model store as `iris_clf`."""

import bentoml
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

features, species = load_iris(return_X_y=True)
model = LogisticRegression(max_iter=1000).fit(features, species)
saved = bentoml.sklearn.save_model("iris_clf", model, metadata={"accuracy": float(model.score(features, species))})
print(f"saved {saved.tag}")

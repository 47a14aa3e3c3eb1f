"""Classifies iris flowers: the service that Tidegate's tutorial releases."""

import bentoml
import numpy as np
from bentoml.models import BentoModel

image = bentoml.images.Image(python_version="3.11", lock_python_packages=False).requirements_file("requirements.lock")


@bentoml.service(image=image, workers=1, traffic={"timeout": 10})
class IrisClassifier:
    """Predicts the species (0 setosa, 1 versicolor, 2 virginica) from four measurements in centimetres."""

    iris = BentoModel("iris_clf:latest")

    def __init__(self) -> None:
        self.model = bentoml.sklearn.load_model(self.iris)

    @bentoml.api
    def predict(self, features: np.ndarray) -> np.ndarray:
        """One class per row of `features` (sepal length, sepal width, petal length, petal width)."""
        return self.model.predict(features)

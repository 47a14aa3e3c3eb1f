"""Raises in `__init__`: BentoML starts it again and again and never exits."""

import bentoml

image = bentoml.images.Image(python_version="3.11", lock_python_packages=False).requirements_file("requirements.lock")


@bentoml.service(image=image, workers=1)
class Hello:
    """Cannot be made."""

    def __init__(self) -> None:
        raise RuntimeError("the weights file is damaged")

    @bentoml.api
    def greet(self, name: str = "world") -> dict[str, str]:
        """Never reached."""
        return {"greeting": f"hello {name}"}

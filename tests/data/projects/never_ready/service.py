"""Lives but is never ready: only `/readyz` tells."""

import bentoml

image = bentoml.images.Image(python_version="3.11", lock_python_packages=False).requirements_file("requirements.lock")


@bentoml.service(image=image, workers=1)
class Hello:
    """Answers, but says that it is not ready."""

    def __is_ready__(self) -> bool:
        return False

    @bentoml.api
    def greet(self, name: str = "world") -> dict[str, str]:
        """A greeting that nobody should be sent to."""
        return {"greeting": f"hello {name}"}

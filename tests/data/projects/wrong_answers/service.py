"""Starts and is ready, and answers wrongly: only its smoke cases can tell."""

import bentoml

VERSION = "wrong"
image = bentoml.images.Image(python_version="3.11", lock_python_packages=False).requirements_file("requirements.lock")


@bentoml.service(image=image, workers=1)
class Hello:
    """Greets the wrong way."""

    @bentoml.api
    def greet(self, name: str = "world") -> dict[str, str]:
        """Not what the smoke case expects."""
        return {"greeting": f"go away {name}", "version": VERSION}

"""The trivial service of the tests: answers at once and says which version it is."""

import bentoml

VERSION = "one"
image = bentoml.images.Image(python_version="3.11", lock_python_packages=False).requirements_file("requirements.lock")


@bentoml.service(image=image, workers=1)
class Hello:
    """Greets."""

    @bentoml.api
    def greet(self, name: str = "world") -> dict[str, str]:
        """A greeting and the version that made it."""
        return {"greeting": f"hello {name}", "version": VERSION}

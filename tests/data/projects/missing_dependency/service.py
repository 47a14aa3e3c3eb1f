"""Imports a module that is not in its requirements."""

import bentoml
import a_module_nobody_installed

image = bentoml.images.Image(python_version="3.11", lock_python_packages=False).requirements_file("requirements.lock")


@bentoml.service(image=image, workers=1)
class Hello:
    """Never imported."""

    @bentoml.api
    def greet(self, name: str = "world") -> dict[str, str]:
        """Never reached."""
        return a_module_nobody_installed.greet(name)

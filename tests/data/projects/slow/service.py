"""Takes its time: three seconds to start, half a second to answer."""

import time

import bentoml

VERSION = "slow"
image = bentoml.images.Image(python_version="3.11", lock_python_packages=False).requirements_file("requirements.lock")


@bentoml.service(image=image, workers=1, threads=8)
class Hello:
    """Greets slowly."""

    def __init__(self) -> None:
        time.sleep(3)

    @bentoml.api
    def greet(self, name: str = "world") -> dict[str, str]:
        """A late greeting."""
        time.sleep(0.5)
        return {"greeting": f"hello {name}", "version": VERSION}

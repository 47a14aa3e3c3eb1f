"""Does not parse."""

import bentoml


@bentoml.service(workers=1)
class Hello:
    @bentoml.api
    def greet(self, name: str = "world") -> dict[str, str]
        return {"greeting": f"hello {name}"}

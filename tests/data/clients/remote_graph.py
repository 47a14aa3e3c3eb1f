"""`RemoteGraph`, by itself and as a node of a Python graph that pauses for an approval inside it."""

import sys
from typing import Annotated, Any, TypedDict
import operator

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.pregel.remote import RemoteGraph
from langgraph.types import Command
from langgraph_sdk import get_sync_client

URL = sys.argv[1]


def same(what, got, wanted):
    assert got == wanted, f"{what}: {got!r} instead of {wanted!r}"


client = get_sync_client(url=URL)
remote = RemoteGraph("approval", url=URL)
same("drawn", set(remote.get_graph().nodes) >= {"prepare", "approve", "deploy"}, True)
same("stateless", RemoteGraph("trivial", url=URL).invoke({"x": 1}), {"x": 2})

thread = client.threads.create()["thread_id"]
config = {"configurable": {"thread_id": thread}}
same("fresh state", remote.get_state(config).values, {})
parts = list(remote.stream({"model": "m"}, config, stream_mode="updates"))
same("parts", [next(iter(part)) for part in parts], ["prepare", "__interrupt__"])
state = remote.get_state(config)
same("next", state.next, ("approve",))
ended = remote.invoke(Command(resume="yes"), config)
same("resumed", ended["log"], ["prepare", "approve", "deploy"])
same("history", [s.metadata["step"] for s in remote.get_state_history(config)], [3, 2, 1, 0])
remote.update_state(config, {"log": ["by hand"]}, as_node="prepare")
same("updated", remote.get_state(config).values["log"][-1], "by hand")


class Outer(TypedDict, total=False):
    model: str
    log: Annotated[list[str], operator.add]
    decision: Any


graph = StateGraph(Outer)
graph.add_node("before", lambda state: {"log": ["before"]})
graph.add_node("release", RemoteGraph("approval", url=URL, name="release"))
graph.add_edge(START, "before")
graph.add_edge("before", "release")
graph.add_edge("release", END)
outer = graph.compile(checkpointer=InMemorySaver())
config = {"configurable": {"thread_id": client.threads.create()["thread_id"]}}
paused = outer.invoke({"model": "m"}, config)
same("paused", [i.value["question"] for i in paused["__interrupt__"]], ["Deploy?"])
ended = outer.invoke(Command(resume="yes"), config)
same("went on", ended["decision"], "yes")
same("all of it", ended["log"][-3:], ["prepare", "approve", "deploy"])
print("remote ok")

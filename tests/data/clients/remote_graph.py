"""`RemoteGraph`, by itself and as a node of a Python graph that pauses for an approval inside it."""

import sys
from typing import Annotated, Any, TypedDict
import operator

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.pregel.remote import RemoteGraph
from langgraph.types import Command, interrupt
from langgraph.errors import GraphInterrupt
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


inside = {"configurable": {"thread_id": client.threads.create()["thread_id"]}}


def release(state):
    """Asks in the outer graph what the remote graph asks. A bare `RemoteGraph` node would send its input again when it is resumed."""
    if not remote.get_state(inside).next:
        try:
            remote.invoke({"model": state["model"]}, inside)
        except GraphInterrupt:
            pass
    question = remote.get_state(inside).tasks[0].interrupts[0].value
    ended = remote.invoke(Command(resume=interrupt(question)), inside)
    return {"log": ended["log"], "decision": ended["decision"]}


graph = StateGraph(Outer)
graph.add_node("before", lambda state: {"log": ["before"]})
graph.add_node("release", release)
graph.add_edge(START, "before")
graph.add_edge("before", "release")
graph.add_edge("release", END)
outer = graph.compile(checkpointer=InMemorySaver())
config = {"configurable": {"thread_id": "outer"}}
paused = outer.invoke({"model": "m"}, config)
same("paused", [i.value["question"] for i in paused["__interrupt__"]], ["Deploy?"])
same("the remote one waits", client.threads.get(inside["configurable"]["thread_id"])["status"], "interrupted")
ended = outer.invoke(Command(resume="yes"), config)
same("went on", ended["decision"], "yes")
same("all of it", ended["log"], ["before", "prepare", "approve", "deploy"])

# As a node by itself: the outer graph is given what the remote one leaves, and pauses where it pauses.
graph = StateGraph(Outer)
graph.add_node("release", RemoteGraph("approval", url=URL, name="release"))
graph.add_edge(START, "release")
graph.add_edge("release", END)
bare = graph.compile(checkpointer=InMemorySaver())
thread = client.threads.create()["thread_id"]
paused = bare.invoke({"model": "m"}, {"configurable": {"thread_id": thread}})
same("pauses by itself", [i.value["question"] for i in paused["__interrupt__"]], ["Deploy?"])
client.runs.wait(thread, "approval", command={"resume": "yes"})
same("answered beside it", remote.get_state({"configurable": {"thread_id": thread}}).values["decision"], "yes")
print("remote ok")

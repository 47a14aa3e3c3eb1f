"""The real Python SDK, sync and async, against the server whose URL is the argument. Prints one line for each thing that was seen."""

import asyncio
import sys
import uuid

import httpx
from langgraph_sdk import get_client, get_sync_client

URL = sys.argv[1]


def same(what, got, wanted):
    assert got == wanted, f"{what}: {got!r} instead of {wanted!r}"


def sync():
    client = get_sync_client(url=URL)
    found = client.assistants.search(graph_id="approval")
    same("one assistant", [a["graph_id"] for a in found], ["approval"])
    assistant = client.assistants.get(found[0]["assistant_id"])
    same("its version", assistant["version"], 1)
    drawn = client.assistants.get_graph("approval")
    same("its nodes", [n["id"] for n in drawn["nodes"]], ["__start__", "approve", "deploy", "prepare", "__end__"])
    same("schemas", client.assistants.get_schemas("approval")["graph_id"], "approval")
    own = client.assistants.create("approval", name="mine", config={"recursion_limit": 9}, metadata={"team": "ml"})
    same("patched", client.assistants.update(own["assistant_id"], metadata={"x": 1})["version"], 2)
    same("versions", len(client.assistants.get_versions(own["assistant_id"])), 2)
    client.assistants.delete(own["assistant_id"])

    thread = client.threads.create(metadata={"who": "sync"})
    tid = thread["thread_id"]
    same("idle", client.threads.get(tid)["status"], "idle")
    ended = client.runs.wait(tid, "approval", input={"model": "m"})
    question = ended["__interrupt__"][0]
    same("asks", question["value"], {"question": "Deploy?", "model": "m"})
    same("interrupted", client.threads.get(tid)["status"], "interrupted")
    same("found", [t["thread_id"] for t in client.threads.search(metadata={"who": "sync"})], [tid])
    same("next", client.threads.get_state(tid)["next"], ["approve"])
    ended = client.runs.wait(tid, "approval", command={"resume": {question["id"]: "yes"}})
    same("resumed", ended, {"model": "m", "log": ["prepare", "approve", "deploy"], "decision": "yes"})
    history = client.threads.get_history(tid)
    same("history", [s["metadata"]["step"] for s in history], [3, 2, 1, 0])
    changed = client.threads.update_state(tid, {"log": ["by hand"]}, as_node="prepare")
    same("updated", client.threads.get_state(tid)["checkpoint"]["checkpoint_id"], changed["checkpoint"]["checkpoint_id"])
    same("due again", client.threads.get_state(tid)["next"], ["approve"])
    parts = list(client.runs.stream(tid, "approval", input=None, stream_mode=["updates", "values"]))
    same("first", parts[0].event, "metadata")
    same("last", parts[-1].event, "values")
    same("asks again", "__interrupt__" in parts[-1].data, True)
    runs = client.runs.list(tid)
    same("runs", [r["status"] for r in runs], ["success"] * 3)
    try:
        client.runs.wait(tid, "approval", command={"resume": {question["id"]: "no"}})
        raise AssertionError("the second answer was taken")
    except httpx.HTTPStatusError as refused:
        same("second answer", refused.response.status_code, 409)
    client.threads.delete(tid)
    try:
        client.threads.get(tid)
        raise AssertionError("a deleted thread is there")
    except httpx.HTTPStatusError as gone:
        same("gone", gone.response.status_code, 404)
    same("stateless", client.runs.wait(None, "trivial", input={"x": 1}), {"x": 2})
    print("sync ok")


async def asynchronous():
    client = get_client(url=URL)
    thread = await client.threads.create(thread_id=str(uuid.uuid4()))
    tid = thread["thread_id"]
    run = await client.runs.create(tid, "steps", input={"n": 0}, stream_mode=["updates"], stream_resumable=True)
    seen = [part async for part in client.runs.join_stream(tid, run["run_id"])]
    same("updates", sum(part.event == "updates" for part in seen), 60)
    same("joined", (await client.runs.join(tid, run["run_id"]))["n"], 30)
    half = [part async for part in client.runs.join_stream(tid, run["run_id"], last_event_id=seen[20].id)]
    same("rejoined", [part.id for part in half], [part.id for part in seen[21:]])

    other = (await client.threads.create())["thread_id"]
    run = await client.runs.create(other, "slow", input={"x": 1})
    queued = await client.runs.create(other, "slow", input={"x": 5}, multitask_strategy="enqueue")
    same("queued", (await client.runs.get(other, queued["run_id"]))["status"], "pending")
    same("busy", (await client.threads.get(other))["status"], "busy")
    try:
        await client.runs.create(other, "slow", input={"x": 1}, multitask_strategy="reject")
        raise AssertionError("a busy thread took a run that wants to be refused")
    except httpx.HTTPStatusError as refused:
        same("rejected", refused.response.status_code, 409)
    await client.runs.cancel(other, queued["run_id"], wait=True)
    await client.runs.cancel(other, run["run_id"], wait=True)
    same("cancelled", (await client.runs.get(other, run["run_id"]))["status"], "interrupted")

    sub = (await client.threads.create())["thread_id"]
    parts = [
        part
        async for part in client.runs.stream(sub, "sub", input={"model": "m"}, stream_mode="values", stream_subgraphs=True)
    ]
    same("inside", any(part.event.startswith("values|child:") for part in parts), True)
    state = await client.threads.get_state(sub, subgraphs=True)
    same("inner state", state["tasks"][0]["state"]["next"], ["inner"])
    print("async ok")


sync()
asyncio.run(asynchronous())

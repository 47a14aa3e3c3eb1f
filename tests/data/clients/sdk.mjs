// The real JavaScript SDK against the server whose URL is the argument.
import assert from "node:assert/strict";
import { Client } from "@langchain/langgraph-sdk";

const client = new Client({ apiUrl: process.argv[2] });

const [assistant] = await client.assistants.search({ graphId: "approval" });
assert.equal((await client.assistants.get(assistant.assistant_id)).graph_id, "approval");
const drawn = await client.assistants.getGraph("approval");
assert.ok(drawn.nodes.some((node) => node.id === "deploy"));

const { thread_id: thread } = await client.threads.create({ metadata: { who: "js" } });
const asked = await client.runs.wait(thread, "approval", { input: { model: "m" } });
assert.equal(asked.__interrupt__[0].value.question, "Deploy?");
assert.equal((await client.threads.get(thread)).status, "interrupted");
const parts = [];
let begun;
const stream = client.runs.stream(thread, "approval", {
  command: { resume: "yes" },
  streamMode: ["updates", "values"],
  onRunCreated: (run) => (begun = run),
});
for await (const part of stream) parts.push(part);
assert.equal(begun.thread_id, thread);
assert.equal(parts[0].event, "metadata");
assert.deepEqual(parts.at(-1).data.log, ["prepare", "approve", "deploy"]);
assert.deepEqual((await client.threads.getState(thread)).next, []);
assert.equal((await client.threads.getHistory(thread)).length, 4);
await client.threads.updateState(thread, { values: { log: ["by hand"] }, asNode: "prepare" });
assert.deepEqual((await client.threads.getState(thread)).next, ["approve"]);
assert.equal((await client.runs.list(thread)).length, 2);

const { thread_id: other } = await client.threads.create();
const run = await client.runs.create(other, "steps", { input: { n: 0 }, streamResumable: true, streamMode: ["values"] });
const all = [];
for await (const part of client.runs.joinStream(other, run.run_id)) all.push(part);
const rest = [];
for await (const part of client.runs.joinStream(other, run.run_id, { lastEventId: all[9].id })) rest.push(part);
assert.deepEqual(rest, all.slice(10));
assert.equal((await client.runs.join(other, run.run_id)).n, 30);
const slow = await client.runs.create(other, "steps", { input: { n: 0 } });
await client.runs.cancel(other, slow.run_id, true);
assert.equal((await client.runs.get(other, slow.run_id)).status, "interrupted");
await assert.rejects(client.threads.get("00000000-0000-4000-8000-000000000000"));
console.log("js ok");

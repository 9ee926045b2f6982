/** The client against the real sidecar. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { ConnectionClosed, RpcError } from "../src/index.js";
import { spawn, type Sidecar } from "../src/node.js";
import { ENV, real, SIDECAR, withFolder } from "./house.js";

function withSidecar(work: (sidecar: Sidecar) => Promise<void>): Promise<void> {
  return withFolder(async (dataDir) => {
    const sidecar = await spawn({ command: SIDECAR as string, dataDir, env: ENV, stderr: "ignore" });
    try {
      await work(sidecar);
    } finally {
      sidecar.process.kill("SIGKILL");
      await sidecar.ended;
    }
  });
}

test("a whole session", real, () =>
  withSidecar(async (sidecar) => {
    const { client } = sidecar;
    const hello = await client.initialize({ name: "test", version: "1" });
    assert.equal(hello.serverInfo.pid, sidecar.process.pid);
    const told: unknown[] = [];
    client.on("threads.changed", (data) => told.push(data.thread_id));
    const thread = await client.call("threads.create", { title: "on stdio", metadata: { a: [1] } });
    assert.deepEqual([thread.title, thread.metadata], ["on stdio", { a: [1] }]);
    assert.deepEqual(told, [thread.id]);
    const page = await client.call("threads.list");
    assert.deepEqual(page.threads.map((t) => t.id), [thread.id]);
    const caught = await client.call("threads.get", { thread_id: "nope" }).catch((e: unknown) => e);
    assert.ok(caught instanceof RpcError && caught.is("thread_not_found"));
    assert.equal(await sidecar.stop(), 0);
  }),
);

test("streams, reports and cancellation go over the wire", real, () =>
  withSidecar(async ({ client }) => {
    await client.initialize({ name: "test", version: "1" });
    const counted = client.requestStream("probe.count", { upto: 1000 });
    let next = 0;
    for await (const n of counted) assert.equal(n, next++);
    assert.deepEqual([next, await counted.result()], [1000, { count: 1000 }]);

    const kinds: string[] = [];
    await client.request("probe.work", { upto: 2 }, { progress: (report) => kinds.push(report.kind) });
    assert.deepEqual(kinds, ["begin", "report", "end"]);

    const waiting = client.requestStream("probe.wait");
    for await (const word of waiting) {
      assert.equal(word, "waiting");
      break;
    }
    await assert.rejects(waiting.result(), (e) => e instanceof RpcError && e.is("cancelled"));
  }),
);

test("what is under way when the sidecar is killed is rejected", real, () =>
  withSidecar(async (sidecar) => {
    await sidecar.client.initialize({ name: "test", version: "1" });
    const waiting = sidecar.client.requestStream("probe.wait");
    await assert.rejects(async () => {
      for await (const _ of waiting) sidecar.process.kill("SIGKILL");
    }, ConnectionClosed);
    assert.equal(await sidecar.ended, "SIGKILL");
    assert.equal(await sidecar.stop(), "SIGKILL");
  }),
);

test("the log can be read from a pipe", real, async () => {
  const { process, ended } = await spawn({ command: SIDECAR as string, args: ["--no-such-option"], stderr: "pipe" });
  let log = "";
  for await (const chunk of process.stderr ?? []) log += String(chunk);
  assert.match(log, /--no-such-option/);
  assert.equal(await ended, 2);
});

test("an executable that is not there is an error, not a hanging promise", async () => {
  await assert.rejects(spawn({ command: "/nowhere/jan-sidecar" }), /ENOENT/);
});

/** The client on its own: a host that is a script, over the web's streams and over Node's. */

import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { TransformStream } from "node:stream/web";
import { test } from "node:test";

import { lines } from "../src/channel.js";
import { Client, ConnectionClosed, RpcError } from "../src/index.js";

interface Heard {
  id: number;
  method: string;
  params: Record<string, unknown>;
}

/** The host's end of a connection: what the client says, and ways to answer. */
class Host {
  readonly client: Client;
  readonly #heard: AsyncGenerator<string>;
  readonly #out: PassThrough;

  constructor() {
    const up = new PassThrough();
    this.#out = new PassThrough();
    this.client = new Client({ readable: this.#out, writable: up });
    this.#heard = lines(up);
  }

  async next(): Promise<Heard> {
    return JSON.parse((await this.#heard.next()).value as string) as Heard;
  }

  say(message: object): void {
    this.#out.write(JSON.stringify({ jsonrpc: "2.0", ...message }) + "\n");
  }

  bytes(data: Uint8Array): void {
    this.#out.write(data);
  }

  hangUp(): void {
    this.#out.end();
  }
}

test("answers find their requests in any order", async () => {
  const host = new Host();
  const first = host.client.call("threads.create", { title: "one" });
  const second = host.client.call("threads.create", { title: "two" });
  const [one, two] = [await host.next(), await host.next()];
  assert.deepEqual([one.method, one.params, two.params], ["threads.create", { title: "one" }, { title: "two" }]);
  host.say({ id: two.id, result: { id: "t2" } });
  host.say({ id: one.id, result: { id: "t1" } });
  assert.equal((await first).id, "t1");
  assert.equal((await second).id, "t2");
});

test("an error is typed", async () => {
  const host = new Host();
  const call = host.client.call("threads.get", { thread_id: "x" });
  const error = { code: -32025, message: "no", data: { type: "thread_not_found", retryable: false, thread_id: "x" } };
  host.say({ id: (await host.next()).id, error });
  const caught = await call.catch((e: unknown) => e);
  assert.ok(caught instanceof RpcError);
  assert.ok(caught.is("thread_not_found"));
  assert.deepEqual([caught.code, caught.retryable, caught.data["thread_id"]], [-32025, false, "x"]);
});

test("items come before the result, however the bytes are cut", async () => {
  const host = new Host();
  const stream = host.client.stream("threads.run", { thread_id: "t", content: "hé" });
  const { id } = await host.next();
  const said = ["a", "é😀", "c"].map((text, seq) => ({
    jsonrpc: "2.0",
    method: "$/stream",
    params: { id, seq, delta: { type: "delta", text } },
  }));
  const text = [...said, { id, result: { notes: [] } }].map((m) => JSON.stringify(m) + "\r\n\n").join("");
  for (const byte of new TextEncoder().encode(text)) host.bytes(Uint8Array.of(byte));
  const got: string[] = [];
  for await (const item of stream) if (item.type === "delta") got.push(item.text);
  assert.deepEqual(got, ["a", "é😀", "c"]);
  assert.deepEqual((await stream.result()).notes, []);
});

test("a failed stream ends its loop with the error, after the items that had come", async () => {
  const host = new Host();
  const stream = host.client.requestStream("x.y");
  const { id } = await host.next();
  host.say({ method: "$/stream", params: { id, seq: 0, delta: 1 } });
  host.say({ id, error: { code: -32030, message: "gone", data: { type: "worker_died", retryable: true } } });
  const got: unknown[] = [];
  await assert.rejects(async () => {
    for await (const item of stream) got.push(item);
  }, RpcError);
  assert.deepEqual(got, [1]);
});

test("leaving a loop early cancels the request", async () => {
  const host = new Host();
  const stream = host.client.requestStream("x.y");
  const { id } = await host.next();
  host.say({ method: "$/stream", params: { id, seq: 0, delta: 1 } });
  for await (const _ of stream) break;
  const cancel = await host.next();
  assert.deepEqual([cancel.method, cancel.params], ["$/cancelRequest", { id }]);
  host.say({ id, error: { code: -32800, message: "cancelled", data: { type: "cancelled", retryable: false } } });
  await assert.rejects(stream.result(), (e) => e instanceof RpcError && e.is("cancelled"));
});

test("an aborted call rejects at once, asks the host to stop, and hears no late answer", async () => {
  const host = new Host();
  const abort = new AbortController();
  const call = host.client.call("models.load", { id: "m" }, { signal: abort.signal });
  const { id } = await host.next();
  abort.abort(new Error("enough"));
  await assert.rejects(call, /enough/);
  assert.equal((await host.next()).method, "$/cancelRequest");
  host.say({ id, result: {} });
  const ping = host.client.call("ping");
  host.say({ id: (await host.next()).id, result: {} });
  await ping;
});

test("a call that is aborted before it is made is not sent", async () => {
  const host = new Host();
  await assert.rejects(host.client.call("ping", {}, { signal: AbortSignal.abort(new Error("no")) }), /no/);
  void host.client.call("system.info");
  assert.equal((await host.next()).method, "system.info");
});

test("params that are no JSON are refused, and cost nothing else", async () => {
  const host = new Host();
  await assert.rejects(host.client.request("x.y", { n: 1n }), TypeError);
  const ping = host.client.call("ping");
  const { id, method } = await host.next();
  assert.equal(method, "ping");
  host.say({ id, result: {} });
  await ping;
});

test("reports go to the call that asked for them", async () => {
  const host = new Host();
  const reports: unknown[] = [];
  const call = host.client.call("models.load", { id: "m" }, { progress: (report) => reports.push(report) });
  const { id, params } = await host.next();
  assert.equal(params["progressToken"], id);
  host.say({ method: "$/progress", params: { token: id, value: { kind: "begin", message: "loading" } } });
  host.say({ method: "$/progress", params: { token: 999, value: { kind: "report" } } });
  host.say({ id, result: {} });
  await call;
  assert.deepEqual(reports, [{ kind: "begin", message: "loading" }]);
});

test("events reach their listeners until those leave", async () => {
  const host = new Host();
  const heard: unknown[] = [];
  const leave = host.client.on("models.changed", (data) => heard.push([data.id, data.state]));
  host.client.onAny("*", (_, name) => heard.push(name));
  host.say({ method: "models.changed", params: { id: "m", state: "loaded", error: "" } });
  host.say({ method: "weather.changed", params: {} });
  const ping = host.client.call("ping");
  host.say({ id: (await host.next()).id, result: {} });
  await ping;
  leave();
  host.say({ method: "models.changed", params: { id: "m", state: "loaded", error: "" } });
  const again = host.client.call("ping");
  host.say({ id: (await host.next()).id, result: {} });
  await again;
  assert.deepEqual(heard, [["m", "loaded"], "models.changed", "weather.changed", "models.changed"]);
});

test("what is under way is rejected when the host is gone, and so is what follows", async () => {
  const host = new Host();
  const call = host.client.call("ping");
  const stream = host.client.requestStream("x.y");
  host.hangUp();
  await assert.rejects(call, ConnectionClosed);
  await assert.rejects(async () => {
    for await (const _ of stream);
  }, ConnectionClosed);
  await host.client.closed;
  await assert.rejects(host.client.call("ping"), ConnectionClosed);
});

test("a host that does not speak JSON ends the connection", async () => {
  const host = new Host();
  const call = host.client.call("ping");
  host.bytes(new TextEncoder().encode("Segmentation fault\n"));
  await assert.rejects(call, (e) => e instanceof ConnectionClosed && e.cause instanceof SyntaxError);
});

test("the web's streams do as well as Node's", async () => {
  const up = new TransformStream<Uint8Array, Uint8Array>();
  const down = new TransformStream<Uint8Array, Uint8Array>();
  const client = new Client({ readable: down.readable, writable: up.writable });
  const call = client.call("ping");
  const heard = JSON.parse((await lines(up.readable).next()).value as string) as Heard;
  const writer = down.writable.getWriter();
  await writer.write(new TextEncoder().encode(`{"jsonrpc":"2.0","id":${heard.id},"result":{}}\n`));
  assert.deepEqual(await call, {});
});

test("web streams that cannot be iterated are read, and cancelled when what they bring is no JSON", async () => {
  for (const text of ['{"jsonrpc":"2.0","id":1,"result":{}}\n', "Segmentation fault\n"]) {
    const up = new TransformStream<Uint8Array, Uint8Array>();
    const down = new TransformStream<Uint8Array, Uint8Array>();
    const readable = { getReader: () => down.readable.getReader() };
    const call = new Client({ readable, writable: up.writable }).call("ping");
    const writer = down.writable.getWriter();
    await writer.write(new TextEncoder().encode(text));
    if (text.startsWith("{")) assert.deepEqual(await call, {});
    else {
      await assert.rejects(call, ConnectionClosed);
      await assert.rejects(writer.closed); // nobody reads any more
    }
  }
});

/** The golden transcripts without a sidecar: the client says what they say, and understands what they answer. */

import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { test } from "node:test";

import { lines } from "../src/channel.js";
import { Client, RpcError, type Stream } from "../src/index.js";
import { transcripts, type Line } from "./house.js";

interface Message {
  id?: number;
  method?: string;
  params: Record<string, unknown>;
  result?: unknown;
  error?: { code: number; message: string; data: Record<string, unknown> };
}

/** As far as a transcript goes that this client could have had: it sends no batches, no garbage and no ids twice. */
function own(script: Line[]): Line[] {
  let next = 1;
  const foreign = script.findIndex(({ raw, send }) => {
    const { id, method } = (send ?? {}) as Message;
    return raw !== undefined || Array.isArray(send) || (send && (!method || (id !== undefined && id !== next++)));
  });
  return foreign < 0 ? script : script.slice(0, foreign);
}

for (const { name, lines: script } of await transcripts()) {
  test(`the client can have the conversation "${name}" as far as it is one of its own`, async () => {
    const up = new PassThrough();
    const down = new PassThrough();
    const client = new Client({ readable: down, writable: up });
    const said = lines(up);
    const calls = new Map<number, Stream<unknown, unknown>>();
    const got: unknown[] = [];
    const recorded: unknown[] = [];
    const taking: Promise<void>[] = [];
    const take = async (stream: Stream<unknown, unknown>): Promise<void> => {
      for await (const item of stream) got.push(["$/stream", item]);
    };
    client.onAny("*", (data, method) => got.push([method, data]));
    for (const line of own(script)) {
      if (line.send) {
        const { id, method, params } = line.send as Message;
        const { progressToken, ...rest } = params;
        const progress = (report: unknown): void => void got.push(["$/progress", report]);
        if (id === undefined) client.notify(method as string, params);
        else {
          const call = client.requestStream(method as string, rest, progressToken ? { progress } : {});
          calls.set(id, call);
          taking.push(take(call).catch(() => {})); // what it fails with is seen in its result
        }
        assert.deepEqual(JSON.parse((await said.next()).value as string), line.send);
      } else if (line.receive) {
        const { id, method, params, result, error } = line.receive as Message;
        down.write(JSON.stringify(line.receive) + "\n");
        if (method === "$/stream") recorded.push([method, params["delta"]]);
        else if (method === "$/progress") recorded.push([method, params["value"]]);
        else if (method) recorded.push([method, params]);
        else {
          const answer = await calls.get(id as number)?.result().catch((e: unknown) => e);
          if (error) {
            assert.ok(answer instanceof RpcError);
            assert.deepEqual([answer.code, answer.message, answer.data], [error.code, error.message, error.data]);
          } else assert.deepEqual(answer, result);
        }
      }
    }
    down.end();
    await client.closed;
    await Promise.all(taking);
    const byName = (entries: unknown[]): unknown[] => [...entries].sort((a, b) => (String(a) < String(b) ? -1 : 1));
    assert.deepEqual(byName(got), byName(recorded));
  });
}

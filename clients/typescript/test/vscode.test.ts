/** `vscode-jsonrpc`, as it comes from npm, drives the sidecar in both framings. */

import assert from "node:assert/strict";
import { spawn, type ChildProcessWithoutNullStreams } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { test } from "node:test";

import {
  AbstractMessageReader,
  AbstractMessageWriter,
  CancellationTokenSource,
  createMessageConnection,
  ResponseError,
  StreamMessageReader,
  StreamMessageWriter,
  type DataCallback,
  type Disposable,
  type Message,
  type MessageReader,
  type MessageWriter,
} from "vscode-jsonrpc/node";

import { ENV, real, SIDECAR, withFolder } from "./house.js";

/** All that `vscode-jsonrpc` needs to speak lines. */
class LineReader extends AbstractMessageReader implements MessageReader {
  constructor(private readonly readable: NodeJS.ReadableStream) {
    super();
  }

  listen(callback: DataCallback): Disposable {
    const lines = createInterface({ input: this.readable, crlfDelay: Infinity });
    lines.on("line", (line) => callback(JSON.parse(line) as Message));
    lines.on("close", () => this.fireClose());
    return { dispose: () => lines.close() };
  }
}

class LineWriter extends AbstractMessageWriter implements MessageWriter {
  constructor(private readonly writable: NodeJS.WritableStream) {
    super();
  }

  write(message: Message): Promise<void> {
    this.writable.write(JSON.stringify(message) + "\n");
    return Promise.resolve();
  }

  end(): void {
    this.writable.end();
  }
}

type Framing = (child: ChildProcessWithoutNullStreams) => [MessageReader, MessageWriter];

const FRAMINGS: Record<string, Framing> = {
  "Content-Length": (child) => [new StreamMessageReader(child.stdout), new StreamMessageWriter(child.stdin)],
  lines: (child) => [new LineReader(child.stdout), new LineWriter(child.stdin)],
};

for (const [name, framing] of Object.entries(FRAMINGS)) {
  test(`vscode-jsonrpc has a whole session over ${name}`, real, () =>
    withFolder(async (folder) => {
      const child = spawn(SIDECAR as string, ["--data-dir", folder], { env: ENV });
      child.stderr.resume();
      const exit = once(child, "exit");
      const connection = createMessageConnection(...framing(child));
      connection.listen();
      try {
        const hello = await connection.sendRequest<{ serverInfo: { pid: number } }>("initialize", {
          protocolVersion: "1.0",
          clientInfo: { name: "vscode-jsonrpc", version: "10" },
          capabilities: {},
        });
        assert.equal(hello.serverInfo.pid, child.pid);
        await connection.sendNotification("initialized", {});

        const items: { id: number; seq: number; delta: number }[] = [];
        connection.onNotification("$/stream", (item) => void items.push(item));
        assert.deepEqual(await connection.sendRequest("probe.count", { upto: 3 }), { count: 3 });
        assert.deepEqual(items.map(({ seq, delta }) => [seq, delta]), [[0, 0], [1, 1], [2, 2]]);

        const told = new Promise((resolve) => connection.onNotification("probe.told", resolve));
        await connection.sendRequest("probe.tell", { value: "é😀" });
        assert.deepEqual(await told, { value: "é😀" });

        await assert.rejects(connection.sendRequest("probe.fail", { how: "domain" }), (error) => {
          assert.ok(error instanceof ResponseError);
          assert.deepEqual([error.code, error.data.type, error.data.retryable], [-32090, "not_today", true]);
          return true;
        });

        const source = new CancellationTokenSource();
        const waiting = connection.sendRequest("probe.wait", {}, source.token);
        connection.onNotification("$/stream", () => source.cancel());
        await assert.rejects(waiting, (error) => error instanceof ResponseError && error.code === -32800);

        assert.equal(await connection.sendRequest("shutdown"), null);
        await connection.sendNotification("exit");
        assert.equal((await exit)[0], 0);
      } finally {
        connection.dispose();
        child.kill("SIGKILL");
      }
    }),
  );
}

/** The golden transcripts, replayed over the client's own channel. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";

import { lines, sender } from "../src/channel.js";
import { ENV, normaliser, real, SIDECAR, transcripts, withFolder } from "./house.js";

const normalised = await normaliser();

for (const { name, args, lines: script } of await transcripts()) {
  test(`the sidecar says what the transcript "${name}" says`, real, () =>
    withFolder(async (folder) => {
      const child = spawn(SIDECAR as string, ["--data-dir", folder, ...args], {
        stdio: ["pipe", "pipe", "ignore"],
        env: ENV,
      });
      const exit = once(child, "exit");
      try {
        const out = sender(child.stdin);
        const into = lines(child.stdout);
        for (const line of script) {
          if ("send" in line) await out.send(JSON.stringify(line.send));
          else if (line.raw !== undefined) await out.send(line.raw);
          else if ("receive" in line) {
            const { value } = await into.next();
            assert.deepEqual(normalised(JSON.parse(value as string)), line.receive);
          } else {
            await out.end();
            assert.equal((await into.next()).done, true, "nothing more is said");
            assert.equal((await exit)[0], line.exit);
          }
        }
      } finally {
        child.kill("SIGKILL");
      }
    }),
  );
}

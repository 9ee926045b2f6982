/** Runs `jan-sidecar` as a child of this process, in Node. */

import { spawn as spawnProcess, type ChildProcess, type ChildProcessByStdio } from "node:child_process";
import { once } from "node:events";
import type { Readable, Writable } from "node:stream";

import { Client } from "./client.js";

export interface SpawnOptions {
  /** The executable. Default: `jan-sidecar` on the path. */
  command?: string;
  args?: readonly string[];
  /** Where everything is kept. Default: the user's data folder. */
  dataDir?: string;
  env?: NodeJS.ProcessEnv;
  /** What is done with its log. Default: `inherit`. `pipe`: `process.stderr` has it and must be read, else it waits. */
  stderr?: "inherit" | "ignore" | "pipe";
}

/** A sidecar that runs. */
export interface Sidecar {
  readonly client: Client;
  readonly process: ChildProcess;
  /** The exit status, or the signal it died of, when it has ended. */
  readonly ended: Promise<number | NodeJS.Signals>;
  /** `shutdown` and `exit`, with which running work ends properly; after `patience` ms (default 30,000) a kill. */
  stop(patience?: number): Promise<number | NodeJS.Signals>;
}

/** Start a sidecar. Rejects when there is no such executable. Begin the session with `client.initialize`. */
export async function spawn(options: SpawnOptions = {}): Promise<Sidecar> {
  const folder = options.dataDir === undefined ? [] : ["--data-dir", options.dataDir];
  const child = spawnProcess(options.command ?? "jan-sidecar", [...folder, ...(options.args ?? [])], {
    stdio: ["pipe", "pipe", options.stderr ?? "inherit"],
    windowsHide: true,
    ...(options.env ? { env: options.env } : {}),
  }) as ChildProcessByStdio<Writable, Readable, Readable | null>;
  const ended = new Promise<number | NodeJS.Signals>((resolve) => {
    child.once("exit", (code, signal) => resolve(code ?? signal ?? 0));
  });
  await once(child, "spawn");
  child.on("error", () => {}); // a kill that came too late
  const client = new Client({ readable: child.stdout, writable: child.stdin });
  return {
    client,
    process: child,
    ended,
    async stop(patience = 30_000) {
      const impatience = setTimeout(() => child.kill("SIGKILL"), patience);
      try {
        await client.call("shutdown").catch(() => {}); // it may have gone already, or be on its way
        client.notify("exit");
        await client.close();
        return await ended;
      } finally {
        clearTimeout(impatience);
      }
    },
  };
}

/** The real sidecar, when there is one to test with: `JAN_SIDECAR` names the executable. */

import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const SIDECAR = process.env["JAN_SIDECAR"];

/** For `test`: runs only with a sidecar. */
export const real = SIDECAR === undefined ? { skip: "JAN_SIDECAR names no executable" } : { timeout: 60_000 };

export const TRANSCRIPTS = fileURLToPath(new URL("../../../transcripts/", import.meta.url));

/** The environment with the extension that the transcripts use. */
export const ENV = { ...process.env, PYTHONPATH: join(TRANSCRIPTS, "probe") };

/** Run with a fresh data folder. */
export async function withFolder<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), "jan-client-"));
  try {
    return await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

export type Line = { send?: unknown; raw?: string; receive?: unknown; exit?: number };

export interface Transcript {
  name: string;
  args: string[];
  lines: Line[];
}

/** Every golden transcript. */
export async function transcripts(): Promise<Transcript[]> {
  const names = (await readdir(TRANSCRIPTS)).filter((name) => name.endsWith(".ndjson")).sort();
  return Promise.all(
    names.map(async (name) => {
      const text = await readFile(join(TRANSCRIPTS, name), "utf8");
      const [header, ...lines] = text.split("\n").filter(Boolean).map((line) => JSON.parse(line));
      return { name: name.replace(".ndjson", ""), args: header.args, lines };
    }),
  );
}

/** Apply the rules that stand beside the transcripts. */
export async function normaliser(): Promise<(value: unknown) => unknown> {
  const rules = JSON.parse(await readFile(join(TRANSCRIPTS, "rules.json"), "utf8")) as {
    members: Record<string, unknown>;
    prefixes: string[];
  };
  const normalised = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(normalised);
    if (typeof value === "string") return rules.prefixes.find((prefix) => value.startsWith(prefix)) ?? value;
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(
      Object.entries(value).map(([name, inner]) => [name, rules.members[name] ?? normalised(inner)]),
    );
  };
  return normalised;
}

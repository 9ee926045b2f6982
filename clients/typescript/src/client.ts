/** A JSON-RPC 2.0 client: requests, streams, progress, cancellation, events. It starts no process. */

import { lines, sender, type StreamPair } from "./channel.js";
import type { Events, Methods, core } from "./contract.js";
import { ConnectionClosed, RpcError, type ErrorObject } from "./errors.js";
import { Stream } from "./stream.js";

export type MethodName = keyof Methods;
export type StreamingName = { [M in MethodName]: [Methods[M]["item"]] extends [never] ? never : M }[MethodName];
export type EventName = keyof Events;

/** How far long work has come. `done` and `total` have the same unit, which the message tells. */
export interface Progress {
  kind: "begin" | "report" | "end";
  message?: string;
  done?: number;
  total?: number;
}

export interface CallOptions {
  /** Aborting asks the host to stop, and rejects at once with the signal's reason. */
  signal?: AbortSignal;
  /** Asks the host for reports. Some may be left out when they come fast. */
  progress?: (report: Progress) => void;
}

/** Params may be left out when every member may. */
export type Arguments<M extends MethodName> = {} extends Methods[M]["params"]
  ? [params?: Methods[M]["params"], options?: CallOptions]
  : [params: Methods[M]["params"], options?: CallOptions];

interface Pending {
  resolve(result: unknown): void;
  reject(error: unknown): void;
  item?: (item: unknown) => void;
  progress?: ((report: Progress) => void) | undefined;
}

interface Message {
  id?: number | string | null;
  method?: string;
  params?: unknown;
  result?: unknown;
  error?: ErrorObject;
}

type Listener = (data: unknown, name: string) => void;

/** One connection. Everything it has under way is rejected with ConnectionClosed when the other side is gone. */
export class Client {
  /** Resolves when the other side is gone. Never rejects. */
  readonly closed: Promise<void>;
  readonly #out: ReturnType<typeof sender>;
  readonly #pending = new Map<number, Pending>();
  readonly #listeners = new Map<string, Set<Listener>>();
  #next = 1;
  #gone: ConnectionClosed | undefined;

  constructor(streams: StreamPair) {
    this.#out = sender(streams.writable);
    this.closed = this.#read(streams.readable);
  }

  /** Begin the session: `initialize`, then `initialized`, upon which extensions start in the background. */
  async initialize(clientInfo: core.ClientInfo): Promise<core.InitializeResult> {
    const hello = await this.call("initialize", { protocolVersion: "1.0", clientInfo });
    this.notify("initialized");
    return hello;
  }

  /** Call a method. Rejects with RpcError, ConnectionClosed, or the signal's reason. */
  call<M extends MethodName>(method: M, ...[params, options]: Arguments<M>): Promise<Methods[M]["result"]> {
    return this.request(method, params, options) as Promise<Methods[M]["result"]>;
  }

  /** Call a method that streams. Its items stand in `for await`, its result in `result()`. */
  stream<M extends StreamingName>(
    method: M,
    ...[params, options]: Arguments<M>
  ): Stream<Methods[M]["item"], Methods[M]["result"]> {
    return this.requestStream(method, params, options) as Stream<Methods[M]["item"], Methods[M]["result"]>;
  }

  /** Call a method this client has no types for: one of somebody else's extension. */
  request(method: string, params: unknown = {}, options: CallOptions = {}): Promise<unknown> {
    return this.#request(method, params, options).result;
  }

  /** The same for one that streams. */
  requestStream(method: string, params: unknown = {}, options: CallOptions = {}): Stream<unknown, unknown> {
    let stream: Stream<unknown, unknown> | undefined;
    const { result, cancel } = this.#request(method, params, options, (item) => stream?.push(item));
    stream = new Stream(result, cancel);
    return stream;
  }

  /** Send a notification: nothing comes back. */
  notify(method: string, params: unknown = {}): void {
    this.#send(JSON.stringify({ jsonrpc: "2.0", method, params }));
  }

  /** Hear an event until the returned function is called. A listener that throws is reported as an uncaught error. */
  on<E extends EventName>(event: E, listener: (data: Events[E]) => void): () => void {
    return this.onAny(event, listener as Listener);
  }

  /** Hear an event this client has no type for; `*`: every event. */
  onAny(event: string, listener: Listener): () => void {
    const heard = this.#listeners.get(event) ?? new Set();
    const own: Listener = (data, name) => listener(data, name); // one function may listen twice, and leave once
    this.#listeners.set(event, heard.add(own));
    return () => void heard.delete(own);
  }

  /** End the way out, which ends a sidecar, and wait until the way in has ended. */
  async close(): Promise<void> {
    await this.#out.end().catch(() => {});
    await this.closed;
  }

  #request(
    method: string,
    params: unknown,
    { signal, progress }: CallOptions,
    item?: (item: unknown) => void,
  ): { result: Promise<unknown>; cancel: () => void } {
    const id = this.#next++;
    const cancel = (): void => {
      if (this.#pending.has(id)) this.notify("$/cancelRequest", { id });
    };
    const result = new Promise<unknown>((resolve, reject) => {
      if (this.#gone) return reject(this.#gone);
      if (signal?.aborted) return reject(signal.reason);
      const asked = progress ? { ...(params as object), progressToken: id } : params;
      const line = JSON.stringify({ jsonrpc: "2.0", id, method, params: asked }); // rejects when it is no JSON
      const abort = (): void => {
        cancel();
        reject(signal?.reason);
      };
      signal?.addEventListener("abort", abort, { once: true });
      const settled = <T>(settle: (value: T) => void) => (value: T): void => {
        signal?.removeEventListener("abort", abort);
        settle(value);
      };
      const pending: Pending = { resolve: settled(resolve), reject: settled(reject), progress };
      if (item) pending.item = item;
      this.#pending.set(id, pending);
      this.#send(line);
    });
    return { result, cancel };
  }

  #send(line: string): void {
    if (this.#gone) return;
    this.#out.send(line).catch((error: unknown) => this.#lost(error));
  }

  async #read(readable: StreamPair["readable"]): Promise<void> {
    try {
      for await (const line of lines(readable)) {
        const incoming = JSON.parse(line) as Message | Message[];
        for (const message of Array.isArray(incoming) ? incoming : [incoming]) this.#take(message);
      }
      this.#lost();
    } catch (error) {
      this.#lost(error);
    }
  }

  #take(message: Message): void {
    if (message.method !== undefined) return this.#notified(message.method, message.params);
    const pending = this.#pending.get(message.id as number);
    if (!pending) return; // of a request that was never ours: an answer with a null id, for one
    this.#pending.delete(message.id as number);
    if (message.error) pending.reject(new RpcError(message.error));
    else pending.resolve(message.result);
  }

  #notified(method: string, params: unknown): void {
    if (method === "$/stream") {
      const { id, delta } = params as { id: number; delta: unknown };
      this.#pending.get(id)?.item?.(delta);
    } else if (method === "$/progress") {
      const { token, value } = params as { token: number; value: Progress };
      this.#tell(() => this.#pending.get(token)?.progress?.(value));
    } else {
      for (const name of [method, "*"]) {
        for (const listener of [...(this.#listeners.get(name) ?? [])]) this.#tell(() => listener(params, method));
      }
    }
  }

  /** Run a listener: what it throws is its own and must not end the connection. */
  #tell(listener: () => void): void {
    try {
      listener();
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
  }

  #lost(cause?: unknown): void {
    if (this.#gone) return;
    const options = cause === undefined ? {} : { cause };
    this.#gone = new ConnectionClosed("the other side is gone", options);
    for (const pending of this.#pending.values()) pending.reject(this.#gone);
    this.#pending.clear();
  }
}

/** Lines over a pair of byte streams, Node's or the web's. It knows nothing of JSON. */

interface WebReadable {
  getReader(): { read(): Promise<{ done: boolean; value?: Uint8Array | undefined }>; cancel(reason?: unknown): Promise<void> };
}

interface WebWritable {
  getWriter(): { write(data: Uint8Array): Promise<void>; close(): Promise<void> };
}

interface NodeWritable {
  write(data: Uint8Array, done: (error?: Error | null) => void): unknown;
  end(): unknown;
  on?(event: "error", listener: () => void): unknown;
}

/** Where bytes come from and go to: `process.stdout` and `stdin` of a child, a socket, a `TransformStream`. */
export interface StreamPair {
  readable: WebReadable | AsyncIterable<Uint8Array>;
  writable: WebWritable | NodeWritable;
}

/** Yields every line without its end. Blank ones are left out. */
export async function* lines(readable: StreamPair["readable"]): AsyncGenerator<string> {
  const decoder = new TextDecoder("utf-8");
  let parts: Uint8Array[] = [];
  for await (const chunk of chunks(readable)) {
    let start = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
      parts.push(chunk.subarray(start, end));
      const line = decoder.decode(parts.length === 1 ? parts[0] : joined(parts));
      parts = [];
      start = end + 1;
      if (line.trim() !== "") yield line;
    }
    if (start < chunk.length) parts.push(chunk.subarray(start));
  }
}

/** Returns functions that send one line and that end the way out. Both reject when the other side is gone. */
export function sender(writable: StreamPair["writable"]): { send(line: string): Promise<void>; end(): Promise<void> } {
  const encoder = new TextEncoder();
  if ("getWriter" in writable) {
    const writer = writable.getWriter();
    return { send: (line) => writer.write(encoder.encode(line + "\n")), end: () => writer.close() };
  }
  writable.on?.("error", () => {}); // each write reports its own
  return {
    send: (line) =>
      new Promise((resolve, reject) => {
        writable.write(encoder.encode(line + "\n"), (error) => (error ? reject(error) : resolve()));
      }),
    end: async () => void writable.end(),
  };
}

async function* chunks(readable: StreamPair["readable"]): AsyncGenerator<Uint8Array> {
  if (Symbol.asyncIterator in readable) {
    yield* readable;
    return;
  }
  const reader = readable.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      if (value) yield value;
    }
  } finally {
    reader.cancel().catch(() => {}); // who reads no more tells the other side, as Node's iterator does
  }
}

function joined(parts: Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

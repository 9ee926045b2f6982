/** The answer of a streaming method, on its way. */

/**
 * Items as they come, then a result. Iterate once; leaving the loop early cancels the request.
 *
 * Items wait here until they are taken, without limit: who does not want them should not ask for a stream.
 */
export class Stream<Item, Result> implements AsyncIterable<Item> {
  readonly #items: Item[] = [];
  readonly #result: Promise<Result>;
  readonly #cancel: () => void;
  #ended = false;
  #wake: () => void = () => {};

  /** Made by the client; `result` is settled after the last `push`. */
  constructor(result: Promise<Result>, cancel: () => void) {
    this.#result = result;
    this.#cancel = cancel;
    const end = (): void => {
      this.#ended = true;
      this.#wake();
    };
    result.then(end, end); // also keeps a rejection nobody asked for from being reported as unhandled
  }

  /** The result, when it has come. Rejects with what the call failed with. Does not wait for items to be taken. */
  result(): Promise<Result> {
    return this.#result;
  }

  /** Ask the host to stop. The result rejects with `cancelled`, unless it was on its way already. */
  cancel(): void {
    if (!this.#ended) this.#cancel();
  }

  /** For the client: one item more. */
  push(item: Item): void {
    this.#items.push(item);
    this.#wake();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Item, void, undefined> {
    try {
      for (;;) {
        while (this.#items.length > 0) yield this.#items.shift() as Item;
        if (this.#ended) break;
        await new Promise<void>((resolve) => (this.#wake = resolve));
      }
      await this.#result; // a failed call ends the loop with its error, after the items that had come
    } finally {
      this.cancel();
    }
  }
}

/** What must not compile does not, and what must does: this file is checked by `tsc`; running it shows nothing more. */

import type { Client, core, conversational, Methods } from "../src/index.js";
import { test } from "node:test";

test("types are checked by the compiler", () => {});

export async function allowed(client: Client): Promise<void> {
  await client.call("ping");
  const page = await client.call("threads.list", { limit: 10 });
  const title: string | undefined = page.threads[0]?.title;
  const message: core.ChatMessage = { role: "user", content: [{ type: "text", text: title ?? "" }] };
  const stream = client.stream("chat.complete", { messages: [message], stream: true });
  for await (const chunk of stream) {
    const reason = chunk.choices[0]?.finish_reason;
    if (reason === "stop") break; // a known one
    const other: string | null | undefined = reason; // one of tomorrow
    void other;
  }
  const completion: core.ChatCompletion = await stream.result();
  void (completion.object satisfies "chat.completion");
}

export function told(item: Methods["threads.run"]["item"]): string {
  switch (item.type) {
    case "started":
      return item.assistant_message_id;
    case "delta":
    case "reasoning":
      return item.text;
  }
}

export function refused(client: Client, item: conversational.RunStarted | conversational.RunDelta): void {
  // @ts-expect-error params that are required
  void client.call("threads.get");
  // @ts-expect-error no such member
  void client.call("threads.create", { titel: "typo" });
  // @ts-expect-error of the wrong kind
  void client.call("threads.list", { limit: "10" });
  // @ts-expect-error none of the roles there are
  void client.call("messages.create", { thread_id: "t", content: "c", role: "robot" });
  // @ts-expect-error no such method
  void client.call("threads.rename", {});
  // @ts-expect-error it does not stream
  void client.stream("threads.get", { thread_id: "t" });
  // @ts-expect-error not told apart yet
  void item.text;
  client.on("models.changed", (data) => {
    // @ts-expect-error no such member
    void data.path;
  });
}

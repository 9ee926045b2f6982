export type * from "./contract.js";
export type { StreamPair } from "./channel.js";
export { Client, type Arguments, type CallOptions, type EventName, type MethodName, type Progress, type StreamingName } from "./client.js";
export { ConnectionClosed, ERROR_CODES, RpcError, type ErrorObject } from "./errors.js";
export { Stream } from "./stream.js";

/** What a call ends with when it does not end with a result. */

import { ERROR_CODES, type ErrorType, type Open } from "./contract.js";

/** The `error` member of an answer, as it goes over the wire. */
export interface ErrorObject {
  code: number;
  message: string;
  data?: { type?: string; retryable?: boolean; [name: string]: unknown } | null;
}

/** The host's answer is an error. Rely on `type`; `data` has the members of that type (see the error reference). */
export class RpcError extends Error {
  override readonly name = "RpcError";
  readonly code: number;
  readonly type: Open<ErrorType>;
  /** Whether the same call may go well later. */
  readonly retryable: boolean;
  readonly data: Readonly<Record<string, unknown>>;

  constructor(error: ErrorObject) {
    super(error.message);
    this.code = error.code;
    this.data = error.data ?? {};
    this.type = typeof this.data["type"] === "string" ? this.data["type"] : "error";
    this.retryable = this.data["retryable"] === true;
  }

  /** Whether this is an error of the given type, checked against those that are known. */
  is(type: ErrorType): boolean {
    return this.type === type;
  }
}

/** The other side is gone: nothing more can be sent, and what was not answered will not be. */
export class ConnectionClosed extends Error {
  override readonly name = "ConnectionClosed";
}

export { ERROR_CODES, type ErrorType };

/** The client of a scoreboard: a live board, log-in, signed actions. In browsers, workers, Node ≥ 20 and bundlers. */

export interface Entry {
  rank: number;
  userId: string;
  username: string;
  score: number;
  avatarUrl?: string | null;
}

export interface Board {
  /** The best first, ten at most. */
  leaderboard: Entry[];
  /** Names the content; opaque. */
  position: string;
  /** When it last changed, RFC 3339. */
  timestamp: string;
  stale?: boolean;
}

export interface Delta {
  changed: (Entry & { previousRank: number | null })[];
  removed: string[];
}

/** `renew`: the last one was refused. A function is asked whenever the connection needs a token. */
export type Token = string | null | ((renew: boolean) => Promise<string | null> | string | null);

export interface State {
  /** `paused`: the page is out of sight. `stopped`: it will not try again by itself. */
  name: 'connecting' | 'live' | 'waiting' | 'paused' | 'stopped';
  /** The empty string until it is live for the first time. */
  transport: '' | 'WebSocket' | 'SSE' | 'polling';
  /** When it tries again, in milliseconds since 1970; of `waiting`. */
  retryAt: number;
  /** Since when the server can't read the board, RFC 3339; empty: the board is current. */
  stale: string;
  /** Since when nothing is heard although the server has promised to speak, RFC 3339; empty: it speaks. */
  silent: string;
  /** The close code of the connection that was lost; 1013: refused, there are too many. 0 while it is live. */
  code: number;
  /** Why it was lost, in the server's words; may be empty. */
  reason: string;
  /** Which limit refused it, if the server said so: ip, user. */
  layer: string;
  /** How many watch. */
  viewers: number;
}

/** One's own score; null while no store can tell. `points`: of the action that was just counted. */
export interface Personal {
  score: number | null;
  rank: number | null;
  points?: number;
}

/** Of a listener; as `AddEventListenerOptions`, which only projects with the library `dom` know. */
export interface ListenerOptions {
  capture?: boolean;
  once?: boolean;
  passive?: boolean;
  signal?: AbortSignal;
}

export type Listener = ((event: Event) => void) | { handleEvent(event: Event): void };

export interface LiveEvents {
  board: CustomEvent<Board>;
  state: CustomEvent<State>;
  personal: CustomEvent<Personal>;
  rejected: CustomEvent<Rejected>;
  viewers: CustomEvent<{ count: number }>;
}

/** A board that keeps itself current until it is closed. The same server, mode and token share one connection. */
export interface Live extends EventTarget {
  readonly state: State;
  /** The newest board; null before the first. */
  readonly board: Board | null;
  /** Proves the user on the open connection: after a log-in, with a new token. */
  identify(token: string): void;
  /** Connects anew, as another user or none. */
  redial(): void;
  /** Leaves the connection; the last one to leave ends it. */
  close(): void;
  addEventListener<Name extends keyof LiveEvents>(
    type: Name,
    listener: (event: LiveEvents[Name]) => void,
    options?: boolean | ListenerOptions,
  ): void;
  addEventListener(type: string, listener: Listener | null, options?: boolean | ListenerOptions): void;
  removeEventListener<Name extends keyof LiveEvents>(
    type: Name,
    listener: (event: LiveEvents[Name]) => void,
    options?: boolean | ListenerOptions,
  ): void;
  removeEventListener(type: string, listener: Listener | null, options?: boolean | ListenerOptions): void;
}

export interface ConnectOptions {
  /** The server; the page's own by default. Outside a page it must be given. */
  url?: string;
  token?: Token;
  /** `delta`, the default: only what changed travels. */
  mode?: 'delta' | 'full';
}

export function connect(options?: ConnectOptions): Live;

/** What signs actions. `skew`: the server's clock minus ours, in milliseconds. */
export interface Credentials {
  token: string;
  secret: string;
  /** Without it the server tries every key that is in force. */
  keyVersion?: number;
  userId?: string;
  skew?: number;
}

export interface Action {
  url?: string;
  actionType: string;
  metadata?: object;
  /** Of a type that needs a start: what `startAction` gave. */
  startId?: string;
  /** Of a type that needs evidence: it is uploaded first. At most 256 KiB. */
  evidence?: Uint8Array<ArrayBuffer>;
  /** Who acts: a session, or a function that gives credentials, or `token` and `actionSecret` as log-in gave them. */
  session?: Session;
  credentials?: (renew: boolean) => Promise<Credentials> | Credentials;
  token?: string;
  actionSecret?: string;
  actionKeyVersion?: number;
  userId?: string;
}

/** An action that waited for a decision and was refused. */
export interface Rejected {
  actionId: string;
  actionType: string;
  reason: string;
}

/** An action that waits for a decision. A `personal` or a `rejected` event follows. */
export interface Held {
  actionId: string;
  actionType: string;
  status: 'held' | 'approved' | 'refused';
  points: number;
  heldAt: string;
  expiresAt: string;
  reason: string | null;
}

/** The action that names `startId` counts once, and until `expiresAt`. */
export interface Started {
  startId: string;
  expiresAt: string;
}

export interface Scored {
  userId: string;
  previousScore: number;
  pointsAwarded: number;
  newScore: number;
  newRank: number | null;
  timestamp: string;
}

/**
 * What `login` and `submitAction` reject with when the server refuses or, with status 0, does not answer.
 * A part that is missing is a TypeError.
 */
export interface Refused extends Error {
  status: number;
  /** Milliseconds until it may be tried again; 0: not said. */
  wait: number;
  code: string;
  /** Of RATE_LIMITED: ip, login, user, cooldown or daily. */
  layer: string;
  errors: { field: string; message: string }[];
}

/**
 * Submits one action, once, however often it has to be sent. Of a type that waits for a decision:
 * `submitAction<Held>`, or `<Scored | Held>` where both are possible.
 */
export function submitAction<Result extends Scored | Held = Scored>(action: Action): Promise<Result>;

/** Begins an action of a type that needs a start. */
export function startAction(action: Action): Promise<Started>;

export interface Login {
  url?: string;
  /** The user name or the e-mail address. */
  username: string;
  password: string;
}

export interface Guest {
  url?: string;
  /** For a new guest; one that is taken gets a number. */
  username?: string;
  /** 32 to 128 random characters of base64url; the same key is the same guest. A browser makes and keeps one. */
  deviceKey?: string;
}

/** What a guest becomes an account with. */
export interface Account {
  /** Another name. */
  username?: string;
  email: string;
  password: string;
}

export interface Registration {
  url?: string;
  username: string;
  email: string;
  password: string;
  avatarUrl?: string | null;
}

export interface Exchange {
  url?: string;
  /** Of an issuer that the server's settings name: an ID token, or an access token that is a JWT. */
  token: string;
}

/**
 * Somebody who is logged in. `logout`, here or in another tab, ends it for good.
 * Event: `change`, when another user, or nobody, is logged in.
 */
export interface Session extends EventTarget {
  /** As it was given to `login`. */
  readonly url: string;
  /** null: the session has ended. */
  user: { userId: string; username: string } | null;
  /** For `connect`: the access token, renewed if need be. */
  token: (renew?: boolean) => Promise<string | null>;
  /** For `submitAction`. */
  credentials: (renew?: boolean) => Promise<Credentials>;
  submitAction<Result extends Scored | Held = Scored>(
    actionType: string,
    metadata?: object,
    proof?: { startId?: string; evidence?: Uint8Array<ArrayBuffer> },
  ): Promise<Result>;
  /** The key of the guest who plays here; outside of a browser keep it. Empty: no guest. */
  readonly deviceKey: string;
  /** Makes an account of a guest: score, rank and history stay, the device key is worth nothing any more. */
  link(account: Account): Promise<void>;
  logout(): Promise<void>;
}

export function login(who: Login): Promise<Session>;
export function register(who: Registration): Promise<Session>;
/** Logs in with a token of another issuer. The account is made at first sight. */
export function exchange(who: Exchange): Promise<Session>;
/** Plays without an account, where the server has guests. */
export function guest(who?: Guest): Promise<Session>;
/** The session that this browser has from before; null: nobody is logged in. */
export function resume(options?: { url?: string }): Promise<Session | null>;
export function logout(session: Session): Promise<void>;

/** The rows after a delta. */
export function applyDelta(rows: Entry[], delta: Delta): Entry[];

// ---- shared with the page and the modules beside it -----------------------------------------------------------------

export interface AfterClose {
  /** The token was refused: with a new one. */
  renew: boolean;
  /** Not again. */
  stop: boolean;
  /** By another transport. */
  down: boolean;
  /** Milliseconds. */
  delay: number;
}

/** What to do about a lost connection: its close code, how many failed before. */
export function afterClose(
  code?: number,
  attempt?: number,
  connection?: { anonymous?: boolean; proven?: boolean },
): AfterClose;

export interface Answer {
  /** 0: none. */
  status: number;
  header: (name?: string) => string;
  /** Retry-After, in milliseconds. */
  wait: number;
  /** The JSON body. */
  json: any;
  stream: ReadableStream<any> | null | false | undefined;
}

/** One request to the API; never rejects for what the network does. */
export function ask(
  path?: string,
  options?: {
    url?: string;
    method?: string;
    body?: string | Uint8Array<ArrayBuffer>;
    token?: string;
    headers?: object;
    signal?: AbortSignal;
  },
): Promise<Answer>;

/** One connection, as a transport sees it. */
export interface Link {
  url: string;
  mode: string;
  level: number;
  token?: string;
  /** Milliseconds between two heartbeats, as the server has promised; 0: none was promised. */
  heartbeat?: number;
  /** Which limit refused it, as an error event said before the close. */
  layer?: string;
  signal: AbortSignal;
  /** When it received its first message; Infinity before that. */
  liveSince: number;
  close(): void;
  since(): string;
  subscribe(): boolean;
  send(message: object): boolean;
  receive(message: any): void;
  lost(code: number, wait?: number, reason?: string, layer?: string): void;
}

// These merge with what `dom` or @types/node declare. A project that has neither compiles too.
declare global {
  interface AbortSignal {}
  interface Event {}
  interface CustomEvent<T = any> extends Event {
    readonly detail: T;
  }
  interface EventTarget {}
  interface ReadableStream<R = any> {}
  interface HTMLElement {}
  interface HTMLElementTagNameMap {
    'live-scoreboard': HTMLElement;
  }
}

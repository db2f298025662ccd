/**
 * One user's actions: signed, submitted, submitted again while nobody answers. Loaded by scoreboard.js, which hands in
 * `ask`.
 * @import { Action, Answer, Credentials, Started } from './scoreboard.js'
 */
const MAX_ATTEMPTS = 4; // of one action, about 8 s; its timestamp is good for 5 min
const BACKOFF = 600; // ms; limit of the first wait, doubled each time, with full jitter

/** A refusal by the server, or, with status 0, no answer at all. */
export class Refused extends Error {
  /** @param {{status: number, wait?: number, json?: any}} answer */
  constructor({ status, wait = 0, json }) {
    super(json?.detail ?? (status ? `The server answered ${status}.` : 'The server does not answer.'));
    this.name = 'Refused';
    this.status = status;
    this.wait = wait;
    /** @type {string} */ this.code = json?.code ?? '';
    /** @type {string} */ this.layer = json?.layer ?? '';
    /** @type {{field: string, message: string}[]} */ this.errors = json?.errors ?? [];
  }
}

/** HMAC-SHA256 by the browser. @param {BufferSource} key @param {BufferSource} data */
async function hmac(key, data) {
  const imported = await crypto.subtle.importKey('raw', key, { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']);
  return new Uint8Array(await crypto.subtle.sign('HMAC', imported, data));
}

/** In hexadecimal digits. @param {Uint8Array} bytes */
const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');

/**
 * The value of X-Action-Signature for exactly this body.
 * @param {string} body @param {string} secret @param {number} [keyVersion]
 */
export async function signAction(body, secret, keyVersion) {
  const [key, data] = [secret, body].map((text) => new TextEncoder().encode(text));
  const signer = crypto.subtle ? hmac : (await import('./sha256.js')).hmacSha256;
  const mac = await signer(key, data);
  return (keyVersion ? `v${keyVersion}.` : '') + hex(mac);
}

/** Throws a TypeError that names the missing part. @param {unknown} present @param {string} name */
function requirePart(present, name, fault = 'is missing') {
  if (!present) throw new TypeError(`submitAction: ${name} ${fault}`);
}

/** The credentials to sign with. @param {Action} action @returns {Promise<Credentials>} */
async function credentialsOf(action, renew = false) {
  const { session, credentials = session?.credentials, token, actionSecret, actionKeyVersion, userId } = action;
  if (!credentials) {
    requirePart(token, 'token', 'is missing, or session, or credentials');
    requirePart(actionSecret, 'actionSecret');
    return { token: token ?? '', secret: actionSecret ?? '', keyVersion: actionKeyVersion, userId };
  }
  requirePart(typeof credentials === 'function', 'credentials', 'is no function');
  const made = await credentials(renew);
  requirePart(made?.token, 'token of the credentials');
  requirePart(made.secret, 'secret of the credentials');
  return made;
}

/** SHA-256 in hexadecimal digits. @param {Uint8Array<ArrayBuffer>} bytes */
async function digest(bytes) {
  if (crypto.subtle) return hex(new Uint8Array(await crypto.subtle.digest('SHA-256', bytes)));
  return hex((await import('./sha256.js')).sha256(bytes)); // plain http
}

/**
 * Sends a request of the user until it has an answer. `send` is called with the credentials of each attempt.
 * Resolves to the answer that `isDone` accepts; rejects with Refused.
 * @param {Action} action @param {(made: Credentials) => Promise<Answer>} send
 * @param {(answer: Answer) => boolean} isDone @param {Credentials} made
 */
async function persist(action, made, send, isDone) {
  for (let attempt = 1, renewed = !(action.session || action.credentials); ; attempt++) {
    const answer = await send(made);
    const { status, json, wait } = answer;
    if (isDone(answer)) return answer;
    if (!renewed && (status === 401 || json?.code === 'INVALID_SIGNATURE')) {
      renewed = true; // an expired token, a rotated key
      made = await credentialsOf(action, true);
    } else if (attempt < MAX_ATTEMPTS && [0, 200, 502, 503, 504].includes(status)) {
      const pause = wait + 300 + Math.random() * BACKOFF * 2 ** attempt;
      await new Promise((done) => setTimeout(done, pause));
    } else throw new Refused(answer);
  }
}

/**
 * Submits one action, once: while nobody answers or nothing can be recorded, the same body goes out again.
 * Resolves to the specification's `data`, also when an earlier try had gone through, or to the action that waits for a
 * decision; rejects with Refused. Evidence is uploaded before.
 * @param {Action} action @param {typeof import('./scoreboard.js').ask} ask
 * @returns {Promise<any>} Scored or Held
 */
export async function submit(action, ask) {
  const { actionType, metadata = {}, session, url = session?.url, startId, evidence: blob } = action ?? {};
  requirePart(actionType, 'actionType');
  requirePart(typeof metadata === 'object' && metadata, 'metadata', 'is no object');
  const made = await credentialsOf(action);
  const { userId, skew = 0 } = made;
  const timestamp = new Date(Date.now() + skew).toISOString();
  // randomUUID is missing on plain http.
  const actionId = crypto.randomUUID?.() ?? hex(crypto.getRandomValues(new Uint8Array(16)));
  const evidence = blob && { sha256: await digest(blob), size: blob.length };
  if (evidence) {
    const path = 'actions/evidence/' + evidence.sha256;
    const upload = ({ token = '' }) => ask(path, { url, method: 'PUT', body: blob, token });
    await persist(action, made, upload, ({ status }) => status === 204);
  }
  const body = JSON.stringify({ actionId, actionType, timestamp, metadata, userId, startId, evidence });
  const { json } = await persist(
    action,
    made,
    async ({ token, secret, keyVersion }) => {
      const headers = { 'X-Action-Signature': await signAction(body, secret, keyVersion) };
      return ask('scores/action', { url, body, token, headers });
    },
    ({ status, json, header }) =>
      json?.data && (status === 200 || status === 202 || header('Idempotency-Replayed') === 'true'),
  );
  return json.data;
}

/**
 * Begins an action of a type that needs a start; rejects with Refused.
 * @param {Action} action @param {typeof import('./scoreboard.js').ask} ask @returns {Promise<Started>}
 */
export async function start(action, ask) {
  const { actionType, session, url = session?.url } = action ?? {};
  requirePart(actionType, 'actionType');
  const body = JSON.stringify({ actionType });
  const send = ({ token = '' }) => ask('actions/start', { url, body, token });
  const { json } = await persist(action, await credentialsOf(action), send, ({ status }) => status === 201);
  return json.data;
}

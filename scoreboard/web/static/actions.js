/**
 * One user's actions: signed, submitted, submitted again while nobody answers. Loaded by scoreboard.js, which hands in
 * `ask`.
 * @import { Action, Credentials, Scored } from './scoreboard.js'
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

/**
 * Submits one action, once: while nobody answers or nothing can be recorded, the same body goes out again.
 * Resolves to the specification's `data`, also when an earlier try had gone through; rejects with Refused.
 * @param {Action} action @param {typeof import('./scoreboard.js').ask} ask @returns {Promise<Scored>}
 */
export async function submit(action, ask) {
  const { actionType, metadata = {}, session, url = session?.url } = action ?? {};
  requirePart(actionType, 'actionType');
  requirePart(typeof metadata === 'object' && metadata, 'metadata', 'is no object');
  let { token, secret, keyVersion, userId, skew = 0 } = await credentialsOf(action);
  const timestamp = new Date(Date.now() + skew).toISOString();
  // randomUUID is missing on plain http.
  const actionId = crypto.randomUUID?.() ?? hex(crypto.getRandomValues(new Uint8Array(16)));
  const body = JSON.stringify({ actionId, actionType, timestamp, metadata, userId });
  for (let attempt = 1, renewed = !(session || action.credentials); ; attempt++) {
    const headers = { 'X-Action-Signature': await signAction(body, secret, keyVersion) };
    const answer = await ask('scores/action', { url, body, token, headers });
    const { status, json, header, wait } = answer;
    if (json?.data && (status === 200 || header('Idempotency-Replayed') === 'true')) return json.data;
    if (!renewed && (status === 401 || json?.code === 'INVALID_SIGNATURE')) {
      renewed = true; // an expired token, a rotated key
      ({ token, secret, keyVersion } = await credentialsOf(action, true));
    } else if (attempt < MAX_ATTEMPTS && [0, 200, 502, 503, 504].includes(status)) {
      const pause = wait + 300 + Math.random() * BACKOFF * 2 ** attempt;
      await new Promise((done) => setTimeout(done, pause));
    } else throw new Refused(answer);
  }
}

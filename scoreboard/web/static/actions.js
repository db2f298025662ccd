/**
 * One user's actions: signed, submitted, submitted again while nobody answers. Loaded by scoreboard.js, which hands in `ask`.
 * @import { Action, Credentials, Scored } from './scoreboard.js'
 */
const TRIES = 4; // of one action, about 8 s; its timestamp is good for 5 min
const FIRST = 600; // ms; ceiling of the first wait, the others double it: full jitter, so that a crowd comes back spread out

/** A refusal by the server, or, with status 0, no answer at all. */
export class Refused extends Error {
  /** @param {{status: number, wait?: number, said?: any}} answer */
  constructor({ status, wait = 0, said }) {
    super(said?.detail ?? (status ? `The server answered ${status}.` : 'The server does not answer.'));
    this.name = 'Refused';
    this.status = status;
    this.wait = wait;
    /** @type {string} */ this.code = said?.code ?? '';
    /** @type {string} */ this.layer = said?.layer ?? '';
    /** @type {{field: string, message: string}[]} */ this.errors = said?.errors ?? [];
  }
}

/** @param {BufferSource} key @param {BufferSource} data */
async function hmac(key, data) {
  const imported = await crypto.subtle.importKey('raw', key, { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']);
  return new Uint8Array(await crypto.subtle.sign('HMAC', imported, data));
}

/** @param {Uint8Array} bytes */
const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');

/** The value of X-Action-Signature for exactly this body. @param {string} body @param {string} secret @param {number} [keyVersion] */
export async function signAction(body, secret, keyVersion) {
  const [key, data] = [secret, body].map((text) => new TextEncoder().encode(text));
  const mac = await (crypto.subtle ? hmac(key, data) : import('./sha256.js').then(({ hmacSha256 }) => hmacSha256(key, data)));
  return (keyVersion ? `v${keyVersion}.` : '') + hex(mac);
}

/** A TypeError names the part that is missing. @param {unknown} good @param {string} name */
function need(good, name, fault = 'is missing') {
  if (!good) throw new TypeError(`submitAction: ${name} ${fault}`);
}

/** What signs. @param {Action} action @returns {Promise<Credentials>} */
async function credentialsOf({ session, credentials = session?.credentials, token, actionSecret, actionKeyVersion, userId }, renew = false) {
  if (!credentials) {
    need(token, 'token', 'is missing, or session, or credentials');
    need(actionSecret, 'actionSecret');
    return { token: token ?? '', secret: actionSecret ?? '', keyVersion: actionKeyVersion, userId };
  }
  need(typeof credentials === 'function', 'credentials', 'is no function');
  const made = await credentials(renew);
  need(made?.token, 'token of the credentials');
  need(made.secret, 'secret of the credentials');
  return made;
}

/**
 * Submits one action, once: while nobody answers or nothing can be recorded, the same body goes out again.
 * Resolves to the specification's `data`, also when an earlier try had gone through; rejects with Refused.
 * @param {Action} action @param {typeof import('./scoreboard.js').ask} ask @returns {Promise<Scored>}
 */
export async function submit(action, ask) {
  const { actionType, metadata = {}, session, url = session?.url } = action ?? {};
  need(actionType, 'actionType');
  need(typeof metadata === 'object' && metadata, 'metadata', 'is no object');
  let { token, secret, keyVersion, userId, skew = 0 } = await credentialsOf(action);
  const timestamp = new Date(Date.now() + skew).toISOString();
  const actionId = crypto.randomUUID?.() ?? hex(crypto.getRandomValues(new Uint8Array(16))); // the former is missing on plain http
  const body = JSON.stringify({ actionId, actionType, timestamp, metadata, userId });
  for (let attempt = 1, renewed = !(session || action.credentials); ; attempt++) {
    const headers = { 'X-Action-Signature': await signAction(body, secret, keyVersion) };
    const answer = await ask('scores/action', { url, body, token, headers });
    const { status, said, head, wait } = answer;
    if (said?.data && (status === 200 || head('Idempotency-Replayed') === 'true')) return said.data;
    if (!renewed && (status === 401 || said?.code === 'INVALID_SIGNATURE')) {
      renewed = true; // an expired token, a rotated key
      ({ token, secret, keyVersion } = await credentialsOf(action, true));
    } else if (attempt < TRIES && [0, 200, 502, 503, 504].includes(status)) {
      const pause = wait + 300 + Math.random() * FIRST * 2 ** attempt;
      await new Promise((done) => setTimeout(done, pause));
    } else throw new Refused(answer);
  }
}
